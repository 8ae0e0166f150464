import { count, size } from "../lib/format.js";
import { html } from "../ui/html.js";
import { Linked } from "../ui/linked.js";
import { Precisions } from "./model_memory.js";

/** What a model is, before its weights are fetched: what there is to download, what it takes, or why it cannot be had. */
export function Found({ found }) {
  const facts = [
    ["To download", found.missing_bytes > 0 ? size(found.missing_bytes) : !found.why && "nothing: it is on the studio's machine"],
    ["Parameters", found.parameters !== null && count(found.parameters)],
    ["Stored as", found.quantized ?? found.dtype],
    ["Family", found.family],
    ["Layers", found.n_layers && `${count(found.n_layers)} × ${count(found.d_model)}`],
    ["Hooks", found.hooks && count(found.hooks)],
    ["Context", found.context && `${count(found.context)} tokens`],
    ["Licence", found.licence],
    ["Revision", found.revision && html`<code title=${found.revision}>${found.revision.slice(0, 12)}</code>`],
  ].filter(([, value]) => value);
  return html`<div class="found" role="group" aria-label="What it is">
    ${found.why && html`<p class="refusal" role="alert">It cannot be added as things stand: <${Linked} text=${found.why} /></p>`}
    ${found.gated && !found.why && html`<p class="help">It is gated, and the studio's token has access to it.</p>`}
    <dl class="facts">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    ${found.weight_bytes && html`<${Precisions} bytes=${found.weight_bytes} />`}
  </div>`;
}
