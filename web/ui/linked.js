import { html } from "./html.js";

const ADDRESS = /(https?:\/\/[^\s]*[^\s.,:;!?)\]}'"])/;

/** A sentence of the studio's, in which addresses are links that open beside the page. */
export function Linked({ text }) {
  return text.split(ADDRESS).map((part, at) => (at % 2 ? html`<a href=${part} target="_blank" rel="noopener noreferrer">${part}</a>` : part));
}
