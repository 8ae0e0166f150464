import { useState } from "preact/hooks";
import { get, submit } from "../api.js";
import { ago, count, size } from "../lib/format.js";
import { freeName, modelName } from "../lib/names.js";
import { place } from "../lib/route.js";
import { artifacts, newest, slowClock } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";
import { HubToken } from "./hub_token.js";
import { Model } from "./model.js";

const COLUMNS = [
  ["Name", "name", (one) => html`<a href=${place("models", [one.name])}>${one.name}</a>`],
  ["Source", "text code", (one) => one.source],
  ["Family", "text", (one) => one.family],
  ["Parameters", "figure", (one) => count(one.parameters)],
  ["Stored as", "figure", (one) => one.quantized ?? one.dtype],
  ["Layers", "figure", (one) => `${count(one.n_layers)} × ${count(one.d_model)}`],
  ["Hooks", "figure", (one) => count(one.hooks?.length)],
  ["Size", "figure", (one) => size(one.size_bytes)],
  ["Added", "made", (one) => html`<time datetime=${one.created_at}>${ago(one.created_at, slowClock.value)}</time>`],
  ["", "verbs", (one) => html`<${Delete} noun="model" one=${one}
    loses="The studio forgets it; what the machine's Hugging Face cache holds stays. What was made with it has to go first." />`],
];

/** Language models; of one that is open its hook points. */
export function Models({ open }) {
  const [adding, setAdding] = useState(false);
  const list = newest("model");
  const chosen = open[0] && artifacts.model.value.get(open[0]);
  if (chosen) return html`<${Model} model=${chosen} />`;
  const add = html`<button class="first" onClick=${() => setAdding(true)}>Add model</button>`;
  return html`<${Panel} title="Models" count=${list.length} verbs=${add}>
    ${list.length
      ? html`<${Table} label="Models" columns=${COLUMNS} rows=${list} />`
      : html`<${Empty} line="mistudio model add builtin:pico">
          No model is here yet. One of the Hub, a Hugging Face folder, or the small one that miStudio brings:</${Empty}>`}
    ${adding && html`<${Add} onClose=${() => setAdding(false)} />`}
  </${Panel}>`;
}

function Add({ onClose }) {
  const [cached, setCached] = useState([]);
  const [asked, setAsked] = useState(false);
  if (!asked) {
    setAsked(true);
    get("/api/cache/models").then(({ models }) => setCached(models), () => {}); // only what is offered to be chosen
  }
  const also = (source, values) => ({
    source,
    ...(values.named ? {} : { name: freeName(modelName(source), artifacts.model.value) }),
  });
  const fields = [
    { name: "source", label: "Where it comes from", placeholder: "EleutherAI/pythia-70m-deduped", needed: true,
      help: "owner/name of a model of the Hub, a Hugging Face folder of the studio's machine, or builtin:pico",
      list: ["builtin:pico", ...cached.filter((one) => one.is_whole).map((one) => one.source)], also },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }) },
    { name: "revision", label: "Branch, tag or commit", help: "main when left empty",
      when: ({ source = "" }) => /^[\w.-]+\/[\w.-]+$/.test(source) },
  ];
  const send = ({ named, ...spec }) => submit({ kind: "add_model", ...spec });
  return html`<${Form} title="Add a model" verb="Add" fields=${fields} send=${send} onClose=${onClose}>
    ${(values) => html`<${HubToken} source=${values.source} />`}
  </${Form}>`;
}
