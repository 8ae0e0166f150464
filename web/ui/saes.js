import { ago, count, number, share } from "../lib/format.js";
import { saes, slowClock } from "../state.js";
import { Command } from "./command.js";
import { html } from "./html.js";

// Column title, class, and what stands in it.
const COLUMNS = [
  ["Name", "name", (sae) => sae.name],
  ["Model", "text", (sae) => modelOf(sae)],
  ["Hook", "text code", (sae) => sae.hook],
  ["Width", "figure", (sae) => count(sae.width)],
  ["k", "figure", (sae) => count(sae.k)],
  ["FVU", "figure", (sae) => number(sae.fvu)],
  ["L0", "figure", (sae) => number(sae.l0, 1)],
  ["Alive", "figure", (sae) => share(sae.alive)],
  ["Made", "made", (sae, at) => html`<time datetime=${sae.created_at}>${ago(sae.created_at, at)}</time>`],
];

const modelOf = (sae) => sae.model?.name ?? sae.model_name ?? "—";

/** The SAEs there are, the newest first. Its roles are spelt out: on a phone the rows are laid out as blocks. */
export function Saes() {
  const list = [...saes.value.values()].sort((a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? "") || b.id - a.id);
  return html`<section aria-labelledby="saes">
    <h2 id="saes">SAEs ${list.length > 0 && html`<span class="number">${list.length}</span>`}</h2>
    ${list.length ? html`<${Table} list=${list} />` : html`<${NoSae} />`}
  </section>`;
}

function Table({ list }) {
  const at = slowClock.value;
  const head = COLUMNS.map(([title, kind]) => html`<th role="columnheader" scope="col" class=${kind}>${title}</th>`);
  const row = (sae) => COLUMNS.map(([title, kind, show]) =>
    html`<td role="cell" class=${kind} data-title=${title}>${show(sae, at) ?? "—"}</td>`);
  return html`<table role="table" class="saes" aria-labelledby="saes">
    <thead role="rowgroup"><tr role="row">${head}</tr></thead>
    <tbody role="rowgroup">${list.map((sae) => html`<tr role="row" key=${sae.name}>${row(sae)}</tr>`)}</tbody>
  </table>`;
}

function NoSae() {
  return html`<div class="empty"><p>No SAE is here yet. Training one on a tokenization makes it:</p>
    <${Command} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post" /></div>`;
}
