import { place } from "../lib/route.js";
import { jobs } from "../state.js";
import { go } from "../route.js";
import { html } from "../ui/html.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Empty, Panel } from "../ui/panel.js";
import { isEnded, isLive } from "../lib/jobs.js";
import { NewTraining } from "./new_training.js";
import { Run } from "./run.js";

/** Trainings, the newest first: what runs, what waits, what has ended. */
export function Training({ open, query }) {
  if (/^\d+$/.test(open[0])) return html`<${Run} id=${Number(open[0])} key=${open[0]} />`;
  const runs = [...jobs.value.values()].filter((job) => job.kind === "train").sort((a, b) => b.id - a.id);
  const live = runs.filter(isLive);
  const others = runs.filter((job) => !isLive(job));
  const start = html`<a class="button first" href=${place("training", ["new"])}>Train an SAE</a>`;
  return html`<${Panel} title="Training" count=${runs.length} verbs=${start}>
    ${!runs.length && html`<${Empty} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post">
      Nothing has been trained yet. A training reads a tokenization through its model, and makes an SAE:</${Empty}>`}
    ${live.map((job) => html`<${LiveJob} job=${job} key=${job.id} />`)}
    ${others.length > 0 && html`<ul class="rows">${others.map((job) =>
      isEnded(job) ? html`<${EndedJob} job=${job} key=${job.id} />` : html`<${WaitingJob} job=${job} key=${job.id} />`)}</ul>`}
    ${open[0] === "new" && html`<${NewTraining} query=${query} onClose=${() => go("training")} />`}
  </${Panel}>`;
}
