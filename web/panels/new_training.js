import { place } from "../lib/route.js";
import { defaultsOf, extended, valuesOf } from "../lib/training_spec.js";
import { artifacts, jobs, newest } from "../state.js";
import { isEnded } from "../lib/jobs.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { TrainingForm } from "./training_form.js";

/** Tokenizations that are there, and those that a job is about to make: a training waits for them by itself. */
function tokenizations() {
  const there = newest("tokenization");
  const names = new Set(there.map((one) => one.name));
  const coming = [...jobs.value.values()].filter((job) => job.kind === "tokenize" && !isEnded(job) && !names.has(job.spec.name));
  return [...there, ...coming.map(({ spec }) => ({ name: spec.name, model: spec.model, dataset: spec.dataset, coming: true }))];
}

/**
 * A new training: as it is in an address (`model`, `hook`, `tokenization`), the same as another one (`from`, a job), or
 * one that goes on with an SAE (`extends`).
 */
export function NewTraining({ query }) {
  const schema = useLoaded("/api/specs/train");
  const job = useLoaded(query.from ? `/api/jobs/${query.from}` : null);
  const sae = useLoaded(query.extends ? `/api/saes/${encodeURIComponent(query.extends)}` : null);
  const all = tokenizations();
  const texts = query.model ? all.filter((one) => one.model === query.model) : all;
  const failed = [schema, job, sae].map((one) => one.failed).find(Boolean);
  const ready = schema.found && (!query.from || job.found) && (!query.extends || sae.found);
  const way = html`<a href=${place("training")}>All trainings</a>`;
  const start = ready && startOf(schema.found, job.found, sae.found);
  return html`<${Panel} title=${sae.found ? `Train ${sae.found.name} further` : "Train an SAE"} verbs=${way}>
    ${failed ? html`<p class="refusal" role="alert">${failed}</p>`
      : !texts.length ? html`<${NoText} model=${query.model} />`
        : ready && html`<${TrainingForm} key=${JSON.stringify(query)} schema=${schema.found} start=${start} texts=${texts} hook=${query.hook} wanted=${query.tokenization} />`}
  </${Panel}>`;
}

function NoText({ model }) {
  const hub = artifacts.model.value.size ? "" : " Add a model and a dataset first, then tokenize.";
  return html`<${Empty} line=${`mistudio dataset tokenize DATASET --model ${model ?? "MODEL"}`}>
    A training reads a tokenization${model ? ` for ${model}` : ""}: a dataset cut into the model's tokens. None is here yet.${hub}
    <span class="verbs"><a class="button first" href=${place("datasets")}>Go to Datasets</a></span></${Empty}>`;
}

/** What stands in the form at first: values, and whether they are another training's. */
function startOf({ fields, presets }, job, sae) {
  const values = defaultsOf(fields);
  const quick = Object.values(presets)[0]; // a first look is quick
  if (sae?.spec) return { values: { ...values, ...valuesOf(extended(sae, 2 * (sae.tokens ?? 1_000_000))) }, given: true };
  if (job?.kind === "train") return { values: { ...values, ...valuesOf(job.spec) }, given: true };
  return { values: { ...values, ...valuesOf(quick) }, given: false };
}
