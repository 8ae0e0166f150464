import { readings } from "../lib/system.js";
import { sample } from "../state.js";
import { html } from "./html.js";

/** The machine, as of a second ago. */
export function Strip() {
  return html`<section class="strip" aria-label="The studio's machine"><dl>
    ${readings(sample.value).map(({ name, value, used, about }) => html`<div key=${name} title=${about}>
      <dt>${name}</dt>
      <dd>${value}</dd>
      ${used !== null && html`<span class="used" aria-hidden="true" style=${{ "--used": used }}></span>`}
    </div>`)}
  </dl></section>`;
}
