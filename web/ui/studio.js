import { effect, signal } from "@preact/signals";
import { open } from "../events.js";
import { timeOfDay } from "../lib/format.js";
import { route } from "../route.js";
import { heardOf, loss, phase, see, unseen } from "../state.js";
import { html } from "./html.js";
import { JobBar } from "./jobbar.js";
import { Keys } from "./keys.js";
import { Nav } from "./nav.js";
import { Strip } from "./strip.js";
import { Theme } from "./theme.js";

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
const sheets = signal({}); // of those that were fetched

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
    const onload = ({ target }) => loaded(sheets.value = { ...sheets.peek(), [panel]: target.sheet });
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: `/css/${panel}.css`, onload, onerror: failed });
    document.head.append(link);
  });
}

// Panels call different things by the same class: only the sheet of the one that is shown is in force.
effect(() => {
  for (const [of, one] of Object.entries(sheets.value)) one.disabled = of !== route.value.panel;
});

// Who looks at all jobs, or at the one, has seen that it failed.
effect(() => {
  const { panel, open: [id] } = route.value;
  const job = panel === "jobs" && !id ? unseen.value[0] : unseen.value.find((one) => String(one.id) === id);
  if (job && (panel === "jobs" || panel === "training")) see(job);
});

/** The whole page. */
export function Studio() {
  const is = phase.value;
  return html`<div class="studio ${is}">
    <a class="skip" href="#main" onClick=${skip}>Skip to what is shown</a>
    <header class="top">
      <h1><img src="/icon.svg" alt="" width="24" height="24" /> miStudio</h1>
      <${Strip} />
      <p class="verbs"><${Keys} /><${Theme} /></p>
    </header>
    <${Nav} />
    <main id="main" tabindex="-1" aria-busy=${is === "loading"}>
      ${is === "lost" && html`<${Lost} />`}
      ${is === "loading" && html`<p class="empty late">Asking the studio how things stand.</p>`}
      ${heardOf.value && html`<${Shown} />`}
    </main>
    ${heardOf.value && html`<${JobBar} />`}
  </div>`;
}

/** Not as a link does it: what stands behind # is the place that is shown. */
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Shown() {
  const { panel, open: opened, query } = route.value;
  const Panel = fetched.value[panel];
  if (Panel) return html`<${Panel} open=${opened} query=${query} key=${panel} />`;
  if (failed.value !== panel) return null;
  return html`<div class="empty"><p role="alert">This part of the page could not be fetched.</p>
    <p class="verbs"><button onClick=${() => location.reload()}>Load the page again</button></p></div>`;
}

function Lost() {
  const { since, reason } = loss.value;
  const what = reason ? "The studio does not answer as it should" : "No connection to the studio";
  return html`<div class="banner">
    <p><b>${what} since ${timeOfDay(since)}.</b> ${reason ? `It says: ${reason}. ` : ""}
    ${heardOf.value && "What is shown is how things stood then. "}Trying again by itself.</p>
    <button onClick=${open}>Try now</button>
  </div>`;
}
