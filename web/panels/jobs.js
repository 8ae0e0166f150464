import { useState } from "preact/hooks";
import { place } from "../lib/route.js";
import { groups, jobs, older } from "../state.js";
import { html } from "../ui/html.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Older } from "../ui/older.js";
import { Empty, Panel } from "../ui/panel.js";
import { Job } from "./job.js";

const FEW = 10; // ended jobs that are shown at first

/** What runs, what will, and what has ended; or one job that is open. */
export function Jobs({ open }) {
  if (open[0]) return html`<${Job} id=${open[0]} key=${open[0]} />`;
  const { live, waiting, ended } = groups.value;
  return html`<${Panel} title="Jobs">
    <section aria-labelledby="running">
      <h3 id="running">Running</h3>
      ${live.length ? live.map((job) => html`<${LiveJob} job=${job} key=${job.id} />`) : html`<${Idle} />`}
    </section>
    <${List} title="Waiting" jobs=${waiting} row=${WaitingJob} />
    <${List} title="Ended" jobs=${ended} row=${EndedJob} few=${FEW} />
    <${Older} />
  </${Panel}>`;
}

function Idle() {
  if (jobs.value.size) {
    return html`<${Empty} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post"
      verb=${html`<a class="button" href=${place("training", ["new"])}>Train an SAE</a>`}>Nothing is running.</${Empty}>`;
  }
  return html`<${Empty} line="mistudio demo" verb=${html`<a class="button" href=${place("datasets")}>To the datasets</a>`}>
    Nothing has run yet. The demo goes the whole way in a few minutes: a text, its tokens, an SAE, its features.</${Empty}>`;
}

/** The first `few` of them, and the rest when asked for. */
function List({ title, jobs, row: Row, few = jobs.length }) {
  const [all, setAll] = useState(false);
  if (!jobs.length) return null;
  const id = title.toLowerCase();
  const shown = all ? jobs : jobs.slice(0, few);
  const more = jobs.length - shown.length;
  return html`<section aria-labelledby=${id}>
    <h3 id=${id}>${title} <span class="number">${jobs.length}${title === "Ended" && older.value !== null ? " and older" : ""}</span></h3>
    <ul class="rows ${id}">${shown.map((job) => html`<${Row} job=${job} key=${job.id} />`)}</ul>
    ${more > 0 && html`<button class="quiet" onClick=${() => setAll(true)}>Show ${more} more</button>`}
  </section>`;
}
