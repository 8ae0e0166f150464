import { html } from "./html.js";

/** How far something has come, 0 to 1; on the move without a measure when that is not known. */
export function Bar({ share, label }) {
  return html`<progress max="1" value=${share ?? undefined} aria-label=${label}></progress>`;
}
