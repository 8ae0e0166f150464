import { parts, pieces, section as sectionOf } from "../lib/card.js";
import { html } from "./html.js";

const line = (text) => pieces(text).map(({ code, text: piece }, at) => (code ? html`<code key=${at}>${piece}</code>` : piece));

const DRAWN = {
  front: ({ text }) => html`<details><summary>What the Hub reads of it</summary><pre tabindex="0">${text}</pre></details>`,
  heading: ({ text, level }) => html`<p class="head" role="heading" aria-level=${level + 3}>${line(text)}</p>`,
  paragraph: ({ text }) => html`<p>${line(text)}</p>`,
  list: ({ items }) => html`<ul>${items.map((item, at) => html`<li key=${at}>${line(item)}</li>`)}</ul>`,
  table: ({ rows }) => html`<table class="plainly"><tbody>${rows.map((row, at) => html`<tr key=${at}>${row.map((cell, n) => html`<td key=${n}>${line(cell)}</td>`)}</tr>`)}</tbody></table>`,
  code: ({ text }) => html`<pre tabindex="0">${text}</pre>`,
};

/** A README.md as the studio writes it, to be read; its text stays text, whatever it holds. `section`: only what is below this heading. */
export function ReadCard({ text, section }) {
  return html`<div class="read-card">${sectionOf(parts(text), section).map((part, at) => html`<div key=${at}>${DRAWN[part.kind](part)}</div>`)}</div>`;
}
