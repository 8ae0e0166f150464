import { PANELS, place } from "../lib/route.js";
import { route } from "../route.js";
import { html } from "./html.js";

const WORDS = { saes: "SAEs" };
const word = (panel) => WORDS[panel] ?? panel[0].toUpperCase() + panel.slice(1);

/** The panels, in the order in which they are used. */
export function Nav() {
  const { panel: here } = route.value;
  return html`<nav aria-label="Panels"><ul>${PANELS.map((panel) => html`<li key=${panel}>
    <a href=${place(panel)} aria-current=${panel === here ? "page" : undefined}>${word(panel)}</a></li>`)}</ul></nav>`;
}
