import { open } from "../events.js";
import { timeOfDay } from "../lib/format.js";
import { Datasets } from "../panels/datasets.js";
import { Features } from "../panels/features.js";
import { Jobs } from "../panels/jobs.js";
import { Models } from "../panels/models.js";
import { Saes } from "../panels/saes.js";
import { Steering } from "../panels/steering.js";
import { System } from "../panels/system.js";
import { Training } from "../panels/training.js";
import { route } from "../route.js";
import { loss, phase } from "../state.js";
import { html } from "./html.js";
import { JobBar } from "./jobbar.js";
import { Nav } from "./nav.js";
import { Strip } from "./strip.js";

const PANELS = { datasets: Datasets, models: Models, saes: Saes, training: Training, features: Features, steering: Steering, system: System, jobs: Jobs };

/** The whole page. */
export function Studio() {
  const is = phase.value;
  const { panel, open, query } = route.value;
  return html`<div class="studio ${is}">
    <header class="top">
      <h1><img src="/icon.svg" alt="" width="24" height="24" /> miStudio</h1>
      <${Strip} />
    </header>
    <${Nav} panels=${Object.keys(PANELS).filter((one) => one !== "jobs")} />
    <main aria-busy=${is === "loading"}>
      ${is === "lost" && html`<${Lost} />`}
      ${is === "loading"
        ? html`<p class="empty late">Asking the studio how things stand.</p>`
        : html`<${PANELS[panel] ?? Datasets} open=${open} query=${query} key=${panel} />`}
    </main>
    ${is !== "loading" && html`<${JobBar} />`}
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
