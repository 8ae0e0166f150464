import { html } from "../ui/html.js";

/**
 * Figures as bars beside their numbers: a chart that is its own table. `rows`: `{name, value, told, note}` each; `told`:
 * the figure in words.
 */
export function BarTable({ title, heads, rows, note }) {
  const most = Math.max(...rows.map(({ value }) => value), 1);
  return html`<figure class="bartable">
    <figcaption><b>${title}</b> ${note && html`<span class="help">${note}</span>`}</figcaption>
    <table aria-label=${title}>
      <thead><tr>${heads.map((head) => html`<th scope="col" key=${head}>${head}</th>`)}<th aria-hidden="true"></th></tr></thead>
      <tbody>${rows.map(({ key, name, value, told, is }) => html`<tr key=${key ?? name} class=${is}>
        <th scope="row">${name}</th>${told.map((one, at) => html`<td key=${at} class="figure">${one}</td>`)}
        <td class="bar" aria-hidden="true"><span style=${{ width: `${(100 * value) / most}%` }}></span></td></tr>`)}</tbody>
    </table>
  </figure>`;
}
