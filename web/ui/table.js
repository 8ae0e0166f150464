import { html } from "./html.js";
import { Term } from "./term.js";

/**
 * Rows under a heading. `columns`: [title, class, (row) → what stands in it]; a title that is a word of lib/terms.js is
 * explained. Its roles are spelt out: on a phone the
 * rows are laid out as blocks.
 */
export function Table({ columns, rows, label, of = (row) => row.name }) {
  const head = columns.map(([title, kind]) =>
    html`<th role="columnheader" scope="col" class=${kind}>${title ? html`<${Term} of=${title} />` : html`<span class="unseen">What can be done</span>`}</th>`);
  const cells = (row) => columns.map(([title, kind, show]) =>
    html`<td role="cell" class=${kind} data-title=${title}>${show(row) ?? "—"}</td>`);
  return html`<table role="table" class="table" aria-label=${label}>
    <thead role="rowgroup"><tr role="row">${head}</tr></thead>
    <tbody role="rowgroup">${rows.map((row) => html`<tr role="row" key=${of(row)}>${cells(row)}</tr>`)}</tbody>
  </table>`;
}
