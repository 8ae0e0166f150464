import { ago, count, number, share, size } from "../lib/format.js";
import { visible } from "../lib/pieces.js";
import { place } from "../lib/route.js";
import { go } from "../route.js";
import { artifacts, newest, slowClock } from "../state.js";
import { Arriving } from "../ui/arriving.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { losesTokens, tokenizationPlace } from "./datasets.js";
import { BarTable } from "./tokenization_bars.js";

const SETTINGS = {
  shortest: (n) => `fewer than ${count(n)} tokens`,
  longest: (n) => `more than ${count(n)} tokens`,
  max_unprintable: (n) => `more than ${share(n)} unprintable characters`,
  must_match: (pattern) => `without ${pattern}`,
  must_not_match: (pattern) => `with ${pattern}`,
  drop_duplicates: () => "the same text as one before",
  empty: () => "without a token",
};

/** A tokenization: what it is of, what was found in it on the way, and what can be trained on it. */
export function Tokenization({ name }) {
  const one = artifacts.tokenization.value.get(name);
  const back = html`<a href=${place("datasets")}>All datasets</a>`;
  if (!one) {
    return html`<${Panel} title=${name} verbs=${back}>
      <${Arriving} kind="tokenize" noun="tokenization" label="Tokenizations on their way" />
      <p class="empty">There is no tokenization called ${name}.</p>
    </${Panel}>`;
  }
  const verbs = html`${back}
    <${Delete} noun="tokenization" one=${one} loses=${losesTokens(one)} gone=${() => go("datasets", [one.dataset])} />
    <a class="button first" href=${place("training", ["new"], { model: one.model, tokenization: name })}>Train an SAE on it</a>`;
  return html`<${Panel} title=${name} verbs=${verbs}>
    <dl class="facts card">${facts(one).map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    <div class="figures">
      <${Documents} one=${one} />
      <${Windows} one=${one} />
      <${Lengths} one=${one} />
      <${Frequent} list=${one.most_frequent} total=${one.tokens} />
      <${Rare} list=${one.least_frequent} />
    </div>
    <${Trained} name=${name} />
  </${Panel}>`;
}

function facts(one) {
  const settings = one.settings ?? {};
  return [
    ["Dataset", html`<a href=${place("datasets", [one.dataset])}>${one.dataset}</a>`],
    ["Model", html`<a href=${place("models", [one.model])}>${one.model}</a>`],
    ["Tokens", count(one.tokens)],
    ["Windows", `${count(one.windows)} of ${count(one.context)} tokens`],
    ["Documents", settings.packing === false ? "each in windows of its own" : "run on from window to window"],
    ["Stride", settings.stride > 0 && `${count(settings.stride)} tokens`],
    ["BOS", { auto: "as the model was trained", always: "before each window", never: "never" }[settings.bos]],
    ["Bytes a token", number(one.bytes_per_token, 2)],
    ["A document", one.mean_document_tokens && `${count(one.mean_document_tokens)} tokens on average`],
    ["Vocabulary that occurs", `${share(one.vocabulary_covered)}`],
    ["Unknown to the tokenizer", one.unknown_share > 0 && share(one.unknown_share)],
    ["On disk", size(one.size_bytes)],
    ["Shares its windows with", one.same_as && html`<a href=${tokenizationPlace(one.same_as)}>${one.same_as}</a>`],
    ["Made", html`<time datetime=${one.created_at}>${ago(one.created_at, slowClock.value)}</time>`],
  ].filter(([, value]) => value);
}

/** How many documents were kept, and why the others were not. */
function Documents({ one }) {
  const { documents, documents_read: read = documents, dropped = {}, settings = {} } = one;
  const why = (reason) => SETTINGS[reason]?.(settings[reason]) ?? reason;
  const row = (name, n, is) => ({ name, value: n, told: [count(n), share(n / read)], is });
  const rows = [row("kept", documents), ...Object.entries(dropped).map(([reason, n]) => row(why(reason), n, "dropped"))];
  const none = Object.keys(dropped).length ? "" : "; nothing was left out";
  return html`<${BarTable} title="Documents" heads=${["", "Documents", "Share"]} rows=${rows} note=${`${count(read)} were read${none}`} />`;
}

function Windows({ one }) {
  const { windows, held_out_windows: heldOut, train_windows: train = windows - heldOut } = one;
  const row = (name, n) => ({ name, value: n, told: [count(n), share(n / windows)] });
  const by = { document: "as the dataset says", text: `${share(one.settings?.held_out)} of the documents, by their text` }[one.held_out_by] ?? "the last windows of all";
  return html`<${BarTable} title="Windows" heads=${["", "Windows", "Share"]} rows=${[row("to train on", train), row("held out", heldOut)]} note=${`held out: ${by}`} />`;
}

/** Lengths of documents by powers of two; where a window ends is said, for a longer one is cut. */
function Lengths({ one }) {
  const all = one.length_histogram ?? [];
  const bins = all.slice(Math.max(all.findIndex(({ documents }) => documents > 0), 0));
  if (!bins.length) return null;
  const rows = bins.map(({ from_tokens: from, documents: n }) => ({
    name: from === 1 ? "1" : `${count(from)} to ${count(2 * from - 1)}`,
    value: n,
    told: [count(n), share(n / one.documents)],
    is: from <= one.context && one.context < 2 * from ? "here" : "",
  }));
  return html`<${BarTable} title="Length of documents" heads=${["Tokens", "Documents", "Share"]} rows=${rows}
    note=${`a window has ${count(one.context)}, in the row that is marked`} />`;
}

function Frequent({ list, total }) {
  if (!list?.length) return null;
  const rows = list.map(({ id, text, count: n }) => ({ key: id, name: html`<code>${visible(text)}</code>`, value: n, told: [id, count(n), share(n / total)] }));
  return html`<${BarTable} title="Most frequent tokens" heads=${["Token", "Id", "Times", "Share"]} rows=${rows} />`;
}

/** Of the tokens that occur those that do so least: to see what the text has little of. */
function Rare({ list }) {
  if (!list?.length) return null;
  return html`<figure class="bartable" aria-label="Least frequent tokens">
    <figcaption><b>Least frequent tokens</b> <span class="help">of those that occur</span></figcaption>
    <ul class="rare">${list.map(({ id, text, count: n }) => html`<li key=${id} title=${`token ${id}`}><code>${visible(text)}</code> × ${count(n)}</li>`)}</ul>
  </figure>`;
}

/** The SAEs that say they were trained on it. */
function Trained({ name }) {
  const saes = newest("sae").filter((sae) => sae.tokenization === name || sae.tokenization?.name === name);
  if (!saes.length) return null;
  return html`<section aria-labelledby="trained"><h3 id="trained">SAEs trained on it <span class="number">${saes.length}</span></h3>
    <p class="links">${saes.map((sae) => html`<a key=${sae.name} href=${place("saes", [sae.name])}>${sae.name}</a> `)}</p></section>`;
}
