import { useState } from "preact/hooks";
import { submit } from "../api.js";
import { ago, count, share, size } from "../lib/format.js";
import { datasetName, freeName, tokenizationName } from "../lib/names.js";
import { artifacts, jobs, newest, slowClock } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Preview } from "../ui/preview.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";
import { FirstVisit } from "./first_visit.js";
import { HubToken } from "./hub_token.js";

const made = (one) => html`<time datetime=${one.created_at}>${ago(one.created_at, slowClock.value)}</time>`;

/** Texts, and their tokenizations. */
export function Datasets() {
  const [open, setOpen] = useState(null); // "add", or the dataset to tokenize
  const close = () => setOpen(null);
  const list = newest("dataset");
  const tokenized = newest("tokenization");
  const add = html`<button class="first" onClick=${() => setOpen("add")}>Add dataset</button>`;
  const isNew = Object.values(artifacts).every(({ value }) => !value.size) && !jobs.value.size;
  return html`<${Panel} title="Datasets" count=${list.length} verbs=${add}>
    ${isNew && html`<${FirstVisit} />`}
    ${list.length
      ? html`<${Table} label="Datasets" columns=${columns(setOpen)} rows=${list} />`
      : html`<${Empty} line="mistudio dataset add builtin:python">
          No text is here yet. A dataset of the Hub, files of your own, or the Python library that every machine has:</${Empty}>`}
    ${tokenized.length > 0 && html`<section aria-labelledby="tokenized">
      <h3 id="tokenized">Tokenizations <span class="number">${tokenized.length}</span></h3>
      <${Table} label="Tokenizations" columns=${TOKENIZED} rows=${tokenized} />
    </section>`}
    ${open === "add" && html`<${Add} onClose=${close} />`}
    ${open && open !== "add" && html`<${Tokenize} dataset=${open} onClose=${close} />`}
  </${Panel}>`;
}

const tokenizationsOf = (dataset) => newest("tokenization").filter((one) => one.dataset === dataset.name);

const columns = (open) => [
  ["Name", "name", (one) => one.name],
  ["Source", "text code", (one) => one.source],
  ["Documents", "figure", (one) => count(one.rows)],
  ["Text", "figure", (one) => size(one.bytes)],
  ["Tokenized", "figure", (one) => count(tokenizationsOf(one).length)],
  ["Added", "made", made],
  ["", "verbs", (one) => html`<button aria-label=${`Tokenize ${one.name}`} onClick=${() => open(one)}>Tokenize</button>
    <${Delete} noun="dataset" one=${one} loses="Its text goes. Tokenizations that need it have to go first." />`],
];

const TOKENIZED = [
  ["Name", "name", (one) => one.name],
  ["Dataset", "text", (one) => one.dataset],
  ["Model", "text", (one) => one.model],
  ["Tokens", "figure", (one) => count(one.tokens)],
  ["Windows", "figure", (one) => `${count(one.windows)} × ${count(one.context)}`],
  ["Vocabulary", "figure", (one) => share(one.vocabulary_covered)],
  ["Made", "made", made],
  ["", "verbs", (one) => html`<${Delete} noun="tokenization" one=${one} loses="Its windows go; the dataset stays." />`],
];

const SOURCE = {
  name: "source",
  label: "Where it comes from",
  help: "owner/name of a dataset of the Hub, a file or folder of the studio's machine, or builtin:python",
  placeholder: "roneneldan/TinyStories",
  needed: true,
  list: ["builtin:python"],
};

function Add({ onClose }) {
  const also = (source, values) => ({
    source,
    ...(values.named ? {} : { name: freeName(datasetName(source), artifacts.dataset.value) }),
  });
  const fields = [
    { ...SOURCE, also },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }) },
    { name: "rows", label: "Documents at most", kind: "number", min: 1, help: "all of them when left empty" },
  ];
  const send = ({ named, ...spec }) => submit({ kind: "add_dataset", ...spec });
  return html`<${Form} title="Add a dataset" verb="Add" fields=${fields} send=${send} onClose=${onClose}>
    ${(values) => html`<${Preview} at="/api/datasets/preview" source=${values.source} shown=${(found) => html`<${Found} found=${found} />`} key=${values.source} /><${HubToken} source=${values.source} />`}
  </${Form}>`;
}

function Found({ found }) {
  const facts = [
    found.documents !== null && `${count(found.documents)} documents`,
    found.bytes !== null && size(found.bytes),
    found.text_column && `text in ${found.text_column}`,
    found.licence && `licence ${found.licence}`,
    found.configs && `configurations: ${found.configs.join(", ")}`,
  ].filter(Boolean);
  const column = found.text_column ?? found.text_columns?.[0];
  const rows = (found.rows ?? []).slice(0, 3).map((row) => row[column] ?? JSON.stringify(row));
  return html`<p>${facts.join(" · ")}</p>
    ${rows.map((text, at) => html`<pre key=${at} tabindex="0">${String(text).slice(0, 400)}</pre>`)}`;
}

function Tokenize({ dataset, onClose }) {
  const models = newest("model");
  const first = models[0]?.name ?? "";
  const nameFor = (model) => freeName(tokenizationName(dataset.name, model), artifacts.tokenization.value);
  if (!models.length) {
    return html`<${Form} title=${`Tokenize ${dataset.name}`} verb="Tokenize" fields=${[]} onClose=${onClose}
      send=${() => submit({ kind: "add_model", source: "builtin:pico", name: "pico" })}>
      <p>A tokenization is made with a model's tokenizer, and no model is here yet. This adds the one that miStudio brings, pico.</p>
    </${Form}>`;
  }
  const fields = [
    { name: "model", label: "Model", kind: "choice", choices: models.map((one) => [one.name, one.name]),
      help: "whose tokenizer is used, and whose activations the SAE will read",
      also: (model, values) => ({ model, ...(values.named ? {} : { name: nameFor(model) }) }) },
    { name: "context", label: "Tokens in a window", kind: "number", min: 8, max: 131072, needed: true },
    { name: "tokens", label: "Tokens at most", kind: "number", min: 1, help: "all of the text when left empty" },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }) },
  ];
  const start = { model: first, context: 128, name: nameFor(first) };
  const send = ({ named, ...spec }) => submit({ kind: "tokenize", dataset: dataset.name, ...spec });
  return html`<${Form} title=${`Tokenize ${dataset.name}`} verb="Tokenize" fields=${fields} start=${start} send=${send} onClose=${onClose} />`;
}
