import { useState } from "preact/hooks";
import { ago, count, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { artifacts, listsOf, newest, slowClock } from "../state.js";
import { Arriving } from "../ui/arriving.js";
import { Do } from "../ui/do.js";
import { html } from "../ui/html.js";
import { Later } from "../ui/later.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";
import { Model } from "./model.js";

const Add = (props) => html`<${Later} from=${() => import("./models_add.js").then((found) => found.Add)} ...${props} />`;

const tokenizations = listsOf("tokenization", (one) => one.model);
const saes = listsOf("sae", (one) => one.model?.name);
const namesIn = (lists, model) => (lists.value.get(model.name) ?? []).map(({ name }) => name);

/** What was made with a model: its tokenizations and SAEs, by name. */
export const madeWith = (model) => ({ tokenizations: namesIn(tokenizations, model), saes: namesIn(saes, model) });

/** What goes with a model, and what has to go before it. */
export function loses(model) {
  const { tokenizations, saes } = madeWith(model);
  const made = [...tokenizations, ...saes];
  return `The studio forgets it; what the machine's Hugging Face cache holds stays. What was made with it has to go first${made.length ? `: ${made.join(", ")}` : ""}.`;
}

const COLUMNS = [
  ["Name", "name", (one) => html`<a href=${place("models", [one.name])}>${one.name}</a>`],
  ["Source", "text code", (one) => one.source],
  ["Family", "text", (one) => one.family],
  ["Parameters", "figure", (one) => count(one.parameters)],
  ["Stored as", "figure", (one) => one.quantized ?? one.dtype],
  ["Layers", "figure", (one) => `${count(one.n_layers)} × ${count(one.d_model)}`],
  ["Hooks", "figure", (one) => count(one.hooks?.length)],
  ["Size", "figure", (one) => size(one.size_bytes)],
  ["Used by", "text", Used],
  ["Added", "made", (one) => html`<time datetime=${one.created_at}>${ago(one.created_at, slowClock.value)}</time>`],
  ["", "verbs", (one) => html`<${Delete} noun="model" one=${one} loses=${loses(one)} />`],
];

/** How many tokenizations and SAEs there are of it; its page names them. */
function Used(model) {
  const { tokenizations, saes } = madeWith(model);
  const words = [several(tokenizations, "tokenization"), several(saes, "SAE")].filter(Boolean).join(", ");
  return words ? html`<a href=${place("models", [model.name])}>${words}</a>` : html`<span class="faint">nothing yet</span>`;
}

const several = ({ length }, noun) => length > 0 && `${length} ${noun}${length > 1 ? "s" : ""}`;

/** Language models; or the one that is open. */
export function Models({ open }) {
  const [adding, setAdding] = useState(false);
  const list = newest("model");
  if (open[0]) {
    const chosen = artifacts.model.value.get(open[0]);
    return chosen ? html`<${Model} model=${chosen} key=${chosen.name} />` : html`<${Missing} name=${open[0]} />`;
  }
  const add = html`<button class="first" onClick=${() => setAdding(true)}>Add model</button>`;
  return html`<${Panel} title="Models" count=${list.length} verbs=${add}>
    <${Arriving} kind="add_model" noun="model" label="Models on their way" />
    ${list.length
      ? html`<${Table} label="Models" columns=${COLUMNS} rows=${list} />`
      : html`<${Empty} line="mistudio model add builtin:pico">
          No model is here yet. One of the Hub, a Hugging Face folder, or the small one that miStudio brings:
          ${" "}<${Do} verb="Take pico" spec=${{ kind: "add_model", source: "builtin:pico", name: "pico" }} /></${Empty}>`}
    ${adding && html`<${Add} onClose=${() => setAdding(false)} />`}
  </${Panel}>`;
}

function Missing({ name }) {
  return html`<${Panel} title=${name} verbs=${html`<a href=${place("models")}>All models</a>`}>
    <${Arriving} kind="add_model" noun="model" label="Models on their way" />
    <p class="empty">There is no model called ${name}.</p>
  </${Panel}>`;
}
