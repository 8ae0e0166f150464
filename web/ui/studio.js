import { effect, signal } from "@preact/signals";
import { open } from "../events.js";
import { timeOfDay } from "../lib/format.js";
import { route } from "../route.js";
import { loss, phase } from "../state.js";
import { html } from "./html.js";
import { JobBar } from "./jobbar.js";
import { Nav } from "./nav.js";
import { Strip } from "./strip.js";

// Each panel is fetched when it is first come to, with its style sheet where it has one of its own.
const PANELS = {
  datasets: () => import("../panels/datasets.js").then((found) => found.Datasets),
  models: () => import("../panels/models.js").then((found) => found.Models),
  saes: () => import("../panels/saes.js").then((found) => found.Saes),
  training: () => import("../panels/training.js").then((found) => found.Training),
  features: () => import("../panels/features.js").then((found) => found.Features),
  steering: () => import("../panels/steering.js").then((found) => found.Steering),
  system: () => import("../panels/system.js").then((found) => found.System),
  jobs: () => import("../panels/jobs.js").then((found) => found.Jobs),
};
const fetched = signal({});
const failed = signal("");

effect(() => {
  const { panel } = route.value;
  if (fetched.peek()[panel]) return;
  Promise.all([PANELS[panel](), panel !== "jobs" && sheet(panel)]).then(
    ([found]) => (fetched.value = { ...fetched.peek(), [panel]: found }),
    () => (failed.value = panel),
  );
});

/** The style sheet of a panel, in force when this resolves. */
function sheet(panel) {
  return new Promise((loaded, failed) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: `/css/${panel}.css`, onload: loaded, onerror: failed });
    document.head.append(link);
  });
}

/** The whole page. */
export function Studio() {
  const is = phase.value;
  const { panel, open: opened, query } = route.value;
  const Shown = fetched.value[panel];
  return html`<div class="studio ${is}">
    <header class="top">
      <h1><img src="/icon.svg" alt="" width="24" height="24" /> miStudio</h1>
      <${Strip} />
    </header>
    <${Nav} />
    <main aria-busy=${is === "loading"}>
      ${is === "lost" && html`<${Lost} />`}
      ${is === "loading"
        ? html`<p class="empty late">Asking the studio how things stand.</p>`
        : Shown
          ? html`<${Shown} open=${opened} query=${query} key=${panel} />`
          : failed.value === panel && html`<p class="empty">This part of the page could not be fetched: reload it.</p>`}
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
