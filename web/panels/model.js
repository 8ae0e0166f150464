import { ago, count, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { go } from "../route.js";
import { slowClock } from "../state.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { tokenizationPlace } from "./datasets.js";
import { Precisions } from "./model_memory.js";
import { Architecture } from "./model_tree.js";
import { loses, madeWith } from "./models.js";

/** One model: what it is, what it takes in each precision, and where an SAE can read it. */
export function Model({ model }) {
  const { tokenizations, saes } = madeWith(model);
  const facts = [
    ["Source", html`<code>${model.source}</code>`],
    ["Revision", model.revision && html`<code title=${model.revision}>${model.revision.slice(0, 12)}</code>`],
    ["Family", model.family],
    ["Parameters", count(model.parameters)],
    ["Stored as", `${model.quantized ?? model.dtype}, ${size(model.size_bytes)}`],
    ["Layers", count(model.n_layers)],
    ["Width", count(model.d_model)],
    ["Heads", model.n_heads && heads(model)],
    ["Neurons", model.d_mlp && `${count(model.d_mlp)} a layer`],
    ["Vocabulary", count(model.vocab_size)],
    ["Context", model.context && `${count(model.context)} tokens`],
    ["Licence", model.licence],
    ["Tokenizations", tokenizations.length > 0 && links(tokenizations, tokenizationPlace)],
    ["SAEs", saes.length > 0 && links(saes, (name) => place("saes", [name]))],
    ["Added", html`<time datetime=${model.created_at}>${ago(model.created_at, slowClock.value)}</time>`],
  ].filter(([, value]) => value);
  const verbs = html`<a href=${place("models")}>All models</a> <${Delete} noun="model" one=${model} loses=${loses(model)} gone=${() => go("models")} />`;
  return html`<${Panel} title=${model.name} verbs=${verbs}>
    <dl class="facts card">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    ${model.weight_bytes && html`<section aria-labelledby="taken">
      <h3 id="taken">Memory for its weights</h3>
      <${Precisions} bytes=${model.weight_bytes} />
    </section>`}
    <${Architecture} model=${model} />
  </${Panel}>`;
}

const heads = ({ n_heads: all, n_kv_heads: kv, d_head: wide }) =>
  `${count(all)}, each ${count(wide)} wide${kv === all ? "" : `, ${count(kv)} of keys and values`}`;

const links = (names, to) => names.map((name, at) => html`${at > 0 && ", "}<a key=${name} href=${to(name)}>${name}</a>`);
