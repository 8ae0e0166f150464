import { panelOf } from "../lib/jobs.js";
import { PANELS, place } from "../lib/route.js";
import { route } from "../route.js";
import { groups } from "../state.js";
import { html } from "./html.js";
import { Icon } from "./icon.js";

const WORDS = { saes: "SAEs" };
const word = (panel) => WORDS[panel] ?? panel[0].toUpperCase() + panel.slice(1);

/** The panels, in the order in which they are used, with a mark at those of which a job runs. */
export function Nav() {
  const { panel: here } = route.value;
  const busy = new Set(groups.value.live.map(panelOf));
  return html`<nav aria-label="Panels"><ul>${PANELS.map((panel) => html`<li key=${panel}>
    <a href=${place(panel)} aria-current=${panel === here ? "page" : undefined} aria-describedby=${busy.has(panel) ? `runs-${panel}` : undefined}>
      <${Icon} name=${panel} />${word(panel)}</a>
    ${busy.has(panel) && html`<span class="runs" id=${`runs-${panel}`} role="img" aria-label="a job runs" title="a job runs"></span>`}</li>`)}</ul></nav>`;
}
