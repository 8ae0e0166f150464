import { choose, theme } from "./colour.js";
import { html } from "./html.js";

const THEMES = [["", "Auto"], ["dark", "Dark"], ["light", "Light"]];

/** Dark, light, or as the system has it. */
export function Theme() {
  return html`<select class="quiet" aria-label="Theme" title="Theme: Auto is as the system has it" onChange=${(event) => choose(event.target.value)}>
    ${THEMES.map(([of, words]) => html`<option key=${of} value=${of} selected=${of === theme.value}>${words}</option>`)}</select>`;
}
