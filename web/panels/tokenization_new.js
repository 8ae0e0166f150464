import { submit } from "../api.js";
import { freeName, tokenizationName } from "../lib/names.js";
import { artifacts, newest } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { TokenPreview } from "./tokenization_preview.js";

const BOS = [
  ["auto", "as the model was trained"],
  ["always", "always"],
  ["never", "never"],
];

// What most people leave as it is.
const FOLDED = [
  { name: "packing", label: "Pack documents", kind: "switch", help: "they run on from window to window; else each has padded windows of its own" },
  { name: "stride", label: "Tokens that a window repeats", kind: "number", min: 0, help: "of the one before", when: ({ packing }) => !packing },
  { name: "bos", label: "Begin windows with BOS", kind: "choice", choices: BOS },
  { name: "held_out", label: "Share of documents held out", kind: "number", min: 0.001, max: 0.5, help: "never trained on, unless the dataset says which are" },
  { name: "shortest", label: "Leave out documents of fewer tokens", kind: "number", min: 1 },
  { name: "longest", label: "Leave out documents of more tokens", kind: "number", min: 1 },
  { name: "max_unprintable", label: "Leave out by unprintable characters", kind: "number", min: 0, max: 0.999, help: "documents with a larger share of them, as 0.01" },
  { name: "must_match", label: "Leave out documents without", help: "a regular expression of RE2's syntax" },
  { name: "must_not_match", label: "Leave out documents with", help: "a regular expression of RE2's syntax" },
  { name: "drop_duplicates", label: "Leave out what has come before", kind: "switch", help: "documents of the same text" },
].map((field) => ({ ...field, folded: true }));

/** Cut a dataset into a model's tokens, with a look at what that does to a text. */
export function Tokenize({ dataset, onClose }) {
  const models = newest("model");
  const first = models[0]?.name ?? "";
  const nameFor = (model) => freeName(tokenizationName(dataset.name, model), artifacts.tokenization.value);
  if (!models.length) {
    return html`<${Form} title=${`Tokenize ${dataset.name}`} verb="Add pico" fields=${[]} onClose=${onClose}
      send=${() => submit({ kind: "add_model", source: "builtin:pico", name: "pico" })}>
      <p>A tokenization is made with a model's tokenizer, and no model is here yet. This brings the one that comes with miStudio, pico.</p>
    </${Form}>`;
  }
  const fields = [
    { name: "model", label: "Model", kind: "choice", choices: models.map((one) => [one.name, one.name]),
      help: "whose tokenizer is used, and whose activations the SAE will read",
      also: (model, values) => ({ model, ...(values.named ? {} : { name: nameFor(model) }) }) },
    { name: "context", label: "Tokens in a window", kind: "number", min: 8, max: 131072, needed: true },
    { name: "tokens", label: "Tokens at most", kind: "number", min: 1, help: "all of the text when left empty" },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }) },
    ...FOLDED,
  ];
  const start = { model: first, context: 128, name: nameFor(first), packing: true, bos: "auto" };
  const send = (values) => submit({ kind: "tokenize", dataset: dataset.name, ...specOf(values) });
  return html`<${Form} title=${`Tokenize ${dataset.name}`} verb="Tokenize" fields=${fields} start=${start} send=${send} onClose=${onClose}>
    ${(values) => html`<${TokenPreview} dataset=${dataset} values=${values} />`}
  </${Form}>`;
}

/** Of packed documents no window repeats anything, whatever was typed before. */
function specOf({ named, stride, ...values }) {
  return values.packing || stride === undefined ? values : { ...values, stride };
}
