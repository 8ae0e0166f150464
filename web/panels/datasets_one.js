import { useState } from "preact/hooks";
import { ago, count, share, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { go } from "../route.js";
import { artifacts, slowClock } from "../state.js";
import { Arriving } from "../ui/arriving.js";
import { html } from "../ui/html.js";
import { Later } from "../ui/later.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";
import { TOKENIZED, loses, tokenizationsOf } from "./datasets.js";
import { Sample } from "./datasets_sample.js";

const Tokenize = (props) => html`<${Later} from=${() => import("./tokenization_new.js").then((found) => found.Tokenize)} ...${props} />`;

/** A dataset: what it is, what was made of it, and its documents. */
export function Dataset({ name, query }) {
  const [tokenizing, setTokenizing] = useState(false);
  const dataset = artifacts.dataset.value.get(name);
  const back = html`<a href=${place("datasets")}>All datasets</a>`;
  if (!dataset) {
    return html`<${Panel} title=${name} verbs=${back}>
      <${Arriving} kind="add_dataset" noun="dataset" label="Datasets on their way" />
      <p class="empty">There is no dataset called ${name}.</p>
    </${Panel}>`;
  }
  const tokenized = tokenizationsOf(dataset);
  const verbs = html`${back}
    <${Delete} noun="dataset" one=${dataset} loses=${loses(dataset)} gone=${() => go("datasets")} />
    <button class="first" onClick=${() => setTokenizing(true)}>Tokenize</button>`;
  return html`<${Panel} title=${name} verbs=${verbs}>
    <dl class="facts card">${facts(dataset).map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    <section aria-labelledby="tokenized">
      <h3 id="tokenized">Tokenizations <span class="number">${tokenized.length || ""}</span></h3>
      <${Arriving} kind="tokenize" noun="tokenization" label="Tokenizations on their way" />
      ${tokenized.length
        ? html`<${Table} label="Tokenizations" columns=${TOKENIZED.filter(([title]) => title !== "Dataset")} rows=${tokenized} />`
        : html`<${Empty} line=${`mistudio dataset tokenize ${name} --model MODEL`}>
            It is not cut into a model's tokens yet, which training an SAE on it takes.</${Empty}>`}
    </section>
    <${Sample} dataset=${dataset} from=${query.row} />
    ${tokenizing && html`<${Tokenize} dataset=${dataset} onClose=${() => setTokenizing(false)} />`}
  </${Panel}>`;
}

/** What is known of it; what is not known or not so is left out. */
function facts(dataset) {
  const asked = dataset.asked ?? {};
  const cut = [asked.rows && `${count(asked.rows)} documents`, asked.tokens && `about ${count(asked.tokens)} tokens`, asked.bytes && size(asked.bytes)];
  return [
    ["Source", html`<code>${dataset.source}</code>`],
    ["Configuration", dataset.config],
    ["Split", dataset.split],
    ["Revision", dataset.revision && html`<code title=${dataset.revision}>${dataset.revision.slice(0, 12)}</code>`],
    ["Licence", dataset.licence],
    ["Documents", count(dataset.rows)],
    ["Text", size(dataset.bytes)],
    ["A document", dataset.rows > 0 && `${size(dataset.bytes / dataset.rows)} on average`],
    ["Held out", dataset.held_out_rows != null && `${count(dataset.held_out_rows)} (${share(dataset.held_out_rows / dataset.rows)})`],
    ["Left out, blank", dataset.blank_rows > 0 && count(dataset.blank_rows)],
    ["Text column", dataset.text_column],
    ["Stopped after", dataset.is_cut && `${cut.filter(Boolean).join(", ")}: the source has more`],
    ["Mixed by seed", asked.shuffle_seed != null && String(asked.shuffle_seed)],
    ["Added", html`<time datetime=${dataset.created_at}>${ago(dataset.created_at, slowClock.value)}</time>`],
  ].filter(([, value]) => value);
}
