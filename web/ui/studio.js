import { open } from "../events.js";
import { timeOfDay } from "../lib/format.js";
import { loss, phase } from "../state.js";
import { html } from "./html.js";
import { Jobs } from "./jobs.js";
import { Saes } from "./saes.js";
import { Strip } from "./strip.js";

/** The whole page. */
export function Studio() {
  const is = phase.value;
  return html`<div class="studio ${is}">
    <header class="top">
      <h1><img src="/icon.svg" alt="" width="24" height="24" /> miStudio</h1>
      <${Strip} />
    </header>
    ${is === "lost" && html`<${Lost} />`}
    <main aria-busy=${is === "loading"}>
      ${is === "loading" ? html`<p class="empty late">Asking the studio how things stand.</p>` : html`<${Jobs} /><${Saes} />`}
    </main>
  </div>`;
}

function Lost() {
  const { since, reason } = loss.value;
  return html`<div class="banner">
    <p><b>No connection to the studio since ${timeOfDay(since)}.</b> ${reason ? `It says: ${reason}. ` : ""}
    What is shown is how things stood then. Trying again by itself.</p>
    <button onClick=${open}>Try now</button>
  </div>`;
}
