import { useComputed } from "@preact/signals";
import { count } from "../lib/format.js";
import { place } from "../lib/route.js";
import { jobs, older } from "../state.js";
import { html } from "../ui/html.js";
import { Older } from "../ui/older.js";
import { Empty, Panel } from "../ui/panel.js";
import { NewTraining } from "./new_training.js";
import { Run } from "./run.js";
import { TrainingRows } from "./training_rows.js";

/** Trainings: all of them as rows, one of them, or a new one. */
export function Training({ open: [what], query }) {
  if (/^\d+$/.test(what)) return html`<${Run} id=${Number(what)} query=${query} key=${what} />`;
  if (what === "new") return html`<${NewTraining} query=${query} />`;
  return html`<${Trainings} query=${query} />`;
}

const trainings = (all) => [...all.values()].filter((job) => job.kind === "train");

function Trainings({ query }) {
  // Which there are, and in which state: each row follows the rest by itself.
  useComputed(() => trainings(jobs.value).map((job) => `${job.id} ${job.state}`).join()).value;
  const runs = trainings(jobs.peek());
  const start = html`<a class="button first" href=${place("training", ["new"])}>Train an SAE</a>`;
  return html`<${Panel} title="Training" count=${runs.length} verbs=${start}>
    ${runs.length
      ? html`<${TrainingRows} runs=${runs} query=${query} />`
      : html`<${Empty} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post">
        ${older.value === null ? "Nothing has been trained yet." : `None of the newest ${count(jobs.peek().size)} jobs is a training; older ones may be.`}
        A training reads a tokenization through its model, and makes an SAE.
        <span class="verbs">${start}</span></${Empty}>`}
    <${Older} />
  </${Panel}>`;
}
