import { effect, signal } from "@preact/signals";
import { open } from "../events.js";
import { timeOfDay } from "../lib/format.js";
import { place } from "../lib/route.js";
import { readings } from "../lib/system.js";
import { route } from "../route.js";
import { heardOf, loss, phase, sample, see, unseen } from "../state.js";
import { Theme } from "./colour.js";
import { MayOnlyRead } from "./do.js";
import { html } from "./html.js";
import { Sign } from "./icon.js";
import { JobBar } from "./jobbar.js";
import { Keys } from "./keys.js";
import { sheet } from "./later.js";
import { Nav } from "./nav.js";

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
const asked = new Set(); // panels that are fetched, or being fetched

const sheets = new Map(); // panel → its own style sheet

effect(() => {
  const { panel } = route.value;
  dress(panel);
  if (asked.has(panel)) return;
  asked.add(panel);
  Promise.all([PANELS[panel](), panel !== "jobs" && sheet(`/css/${panel}.css`)]).then(
    ([found, link]) => {
      if (link) sheets.set(panel, link.sheet);
      dress(route.peek().panel);
      fetched.value = { ...fetched.peek(), [panel]: found };
    },
    () => {
      asked.delete(panel);
      failed.value = panel;
    },
  );
});

/** Only the sheet of the panel that is shown is in force: several have a word for something of their own. */
function dress(panel) {
  for (const [of, one] of sheets) one.disabled = of !== panel;
}

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
      <h1><${Sign} /> miStudio</h1>
      <${MayOnlyRead} hash=${hashOf(route.value)} />
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

const hashOf = ({ panel, open: opened, query }) => place(panel, opened, query);

/** The machine, as of a second ago. */
function Strip() {
  return html`<section class="strip" aria-label="The studio's machine"><dl>
    ${readings(sample.value).map(({ name, value, used, about }) => html`<div key=${name} title=${about}>
      <dt>${name}</dt>
      <dd>${value}</dd>
      ${used !== null && html`<span class="used" aria-hidden="true" style=${{ "--used": used }}></span>`}
    </div>`)}
  </dl></section>`;
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
