import { Copy } from "./copy.js";
import { html } from "./html.js";

/** A line for the terminal, to be copied. */
export function Command({ line }) {
  return html`<div class="command"><code>${line}</code><${Copy} text=${line} what="the line" /></div>`;
}
