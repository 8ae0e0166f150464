import { mayWrite } from "../state.js";
import { html } from "./html.js";

const ONLY_READS = "This browser may only read";

/** A button that changes something. Where this browser may only read it is off, and says why. */
export function Act({ disabled = false, title, children, ...props }) {
  const is = mayWrite.value;
  return html`<button type="button" ...${props} disabled=${disabled || !is} title=${is ? title : ONLY_READS}
    aria-describedby=${is ? undefined : "may-only-read"}>${children}</button>`;
}

/** What stands at the top of the page then. */
export function MayOnlyRead({ hash }) {
  if (mayWrite.value) return null;
  return html`<p class="rights" id="may-only-read">${ONLY_READS}. <a href=${`/login#as-another${hash}`}>Log in to do more</a></p>`;
}
