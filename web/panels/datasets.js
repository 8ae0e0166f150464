import { computed } from "@preact/signals";
import { useState } from "preact/hooks";
import { ago, count, share, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { artifacts, jobs, listsOf, newest, slowClock } from "../state.js";
import { Arriving } from "../ui/arriving.js";
import { Do } from "../ui/do.js";
import { html } from "../ui/html.js";
import { Later } from "../ui/later.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";

const SHOWN = 3; // tokenizations of a dataset that a row has room for

const FirstVisit = () => html`<${Later} from=${() => import("./first_visit.js").then((found) => found.FirstVisit)} />`;
const Add = (props) => html`<${Later} from=${() => import("./datasets_add.js").then((found) => found.Add)} ...${props} />`;
const Tokenize = (props) => html`<${Later} from=${() => import("./tokenization_new.js").then((found) => found.Tokenize)} ...${props} />`;
const One = (props) => html`<${Later} from=${() => import("./datasets_one.js").then((found) => found.Dataset)} ...${props} />`;
const Tokenization = (props) => html`<${Later} from=${() => import("./tokenization.js").then((found) => found.Tokenization)} ...${props} />`;

/** Where the page of a tokenization is; a dataset's own address has one part only. */
export const tokenizationPlace = (name) => place("datasets", ["tokenizations", name]);

const byDataset = listsOf("tokenization", (one) => one.dataset);
const isNew = computed(() => Object.values(artifacts).every(({ value }) => !value.size) && !jobs.value.size);

/** Of a dataset, the newest first. */
export const tokenizationsOf = (dataset) => byDataset.value.get(dataset.name) ?? [];

/** What goes with a dataset, and what has to go before it. */
export function loses(dataset) {
  const needing = tokenizationsOf(dataset).map(({ name }) => name);
  const first = needing.length ? ` First its tokenizations have to go, which need it: ${needing.join(", ")}.` : "";
  return `Its ${count(dataset.rows)} documents (${size(dataset.bytes)}) go from the studio's disk.${first}`;
}

export const losesTokens = (one) => `Its windows go (${size(one.size_bytes)}); the dataset stays. SAEs that were trained on it keep what they have learned, but cannot be measured on it any more.`;

const made = (one) => html`<time datetime=${one.created_at}>${ago(one.created_at, slowClock.value)}</time>`;

/** Texts, and their tokenizations; or the one that is open. */
export function Datasets({ open, query }) {
  const [dialog, setDialog] = useState(null); // "add", or the dataset to tokenize
  if (open[0] === "tokenizations" && open[1]) return html`<${Tokenization} name=${open[1]} key=${open[1]} />`;
  if (open[0]) return html`<${One} name=${open[0]} query=${query} key=${open[0]} />`;
  const close = () => setDialog(null);
  const list = newest("dataset");
  const tokenized = newest("tokenization");
  const add = html`<button class="first" onClick=${() => setDialog("add")}>Add dataset</button>`;
  return html`<${Panel} title="Datasets" count=${list.length} verbs=${add}>
    ${isNew.value && html`<${FirstVisit} />`}
    <${Arriving} kind="add_dataset" noun="dataset" label="Datasets on their way" />
    ${list.length
      ? html`<${Table} label="Datasets" columns=${columns(setDialog)} rows=${list} />`
      : html`<${Empty} line="mistudio dataset add builtin:python">
          No text is here yet. A dataset of the Hub, files of your own, or the Python library that every machine has:
          ${" "}<${Do} verb="Take the Python library" spec=${{ kind: "add_dataset", source: "builtin:python", name: "python" }} /></${Empty}>`}
    <${Arriving} kind="tokenize" noun="tokenization" label="Tokenizations on their way" />
    ${tokenized.length > 0 && html`<section aria-labelledby="tokenized">
      <h3 id="tokenized">Tokenizations <span class="number">${tokenized.length}</span></h3>
      <${Table} label="Tokenizations" columns=${TOKENIZED} rows=${tokenized} />
    </section>`}
    ${dialog === "add" && html`<${Add} onClose=${close} />`}
    ${dialog && dialog !== "add" && html`<${Tokenize} dataset=${dialog} onClose=${close} />`}
  </${Panel}>`;
}

const columns = (open) => [
  ["Name", "name", (one) => html`<a href=${place("datasets", [one.name])}>${one.name}</a>`],
  ["Source", "text code", (one) => one.source],
  ["Documents", "figure", (one) => count(one.rows)],
  ["Text", "figure", (one) => size(one.bytes)],
  ["Tokens", "figure", tokensOf],
  ["Tokenizations", "text", (one) => html`<${Tokenizations} dataset=${one} />`],
  ["Added", "made", made],
  ["", "verbs", (one) => html`<button aria-label=${`Tokenize ${one.name}`} onClick=${() => open(one)}>Tokenize</button>
    <${Delete} noun="dataset" one=${one} loses=${loses(one)} />`],
];

/** Of the tokenization that has most of them: how many a dataset has is a model's affair. */
function tokensOf(dataset) {
  const [most] = [...tokenizationsOf(dataset)].sort((a, b) => b.tokens - a.tokens);
  return most && html`<span title=${`as ${most.model} reads it, in ${most.name}`}>${count(most.tokens)}</span>`;
}

function Tokenizations({ dataset }) {
  const all = tokenizationsOf(dataset);
  if (!all.length) return html`<span class="faint">none yet</span>`;
  return html`${all.slice(0, SHOWN).map(({ name }, at) => html`${at > 0 && ", "}<a key=${name} href=${tokenizationPlace(name)}>${name}</a>`)}
    ${all.length > SHOWN && html` <a href=${place("datasets", [dataset.name])}>and ${all.length - SHOWN} more</a>`}`;
}

/** How tokenizations stand in a table. */
export const TOKENIZED = [
  ["Name", "name", (one) => html`<a href=${tokenizationPlace(one.name)}>${one.name}</a>`],
  ["Dataset", "text", (one) => html`<a href=${place("datasets", [one.dataset])}>${one.dataset}</a>`],
  ["Model", "text", (one) => html`<a href=${place("models", [one.model])}>${one.model}</a>`],
  ["Tokens", "figure", (one) => count(one.tokens)],
  ["Windows", "figure", (one) => `${count(one.windows)} × ${count(one.context)}`],
  ["Vocabulary", "figure", (one) => share(one.vocabulary_covered)],
  ["Made", "made", made],
  ["", "verbs", (one) => html`<${Delete} noun="tokenization" one=${one} loses=${losesTokens(one)} />`],
];
