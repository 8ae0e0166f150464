// What a job is called, how it stands and what can be done about it, from the API's job object. Pure.

import { amountOf, amount, between, count, duration, known, number, share } from "./format.js";

export const UNFINISHED = ["running", "pausing", "stopping", "queued", "paused", "interrupted"];
const LIVE = new Set(UNFINISHED.slice(0, 3));
const BAD = new Set(["failed", "partial"]);
const RECENT = 20; // ended jobs, of which those that went wrong come first
const METRIC_STEPS = 1000; // more than the trainer makes between two metrics

export const isLive = (job) => LIVE.has(job.state);
export const isEnded = (job) => !UNFINISHED.includes(job.state);
export const isBad = (job) => BAD.has(job.state);

/**
 * Jobs as the page shows them: at work, the oldest first; those to come, in their order; those that ended, the newest
 * first, and of the last few those that went wrong before all.
 */
export function grouped(jobs) {
  const live = jobs.filter(isLive).sort((a, b) => a.id - b.id);
  const waiting = jobs.filter((job) => !isLive(job) && !isEnded(job));
  waiting.sort((a, b) => b.priority - a.priority || a.id - b.id);
  const newest = jobs.filter(isEnded).sort((a, b) => (b.ended_at ?? "").localeCompare(a.ended_at ?? "") || b.id - a.id);
  const recent = newest.slice(0, RECENT);
  const ended = [...recent.filter(isBad), ...recent.filter((job) => !isBad(job)), ...newest.slice(RECENT)];
  return { live, waiting, ended };
}

const VERBS = {
  add_model: "Add model",
  add_dataset: "Add dataset",
  add_sae: "Add SAE",
  tokenize: "Tokenize as",
  train: "Train SAE",
  extract: "Extract features of",
  inspect: "Inspect a text with",
  label: "Label features of",
  score: "Score labels of",
  steer: "Steer with",
  certify: "Certify",
  evaluate: "Evaluate",
  compare: "Compare",
  export: "Export",
  push: "Push to the Hub",
  upload: "Put on Neuronpedia",
};

/** "Train SAE", "pico-demo": what it does, and to what. */
export function title(job) {
  const verb = VERBS[job.kind] ?? job.kind.replaceAll("_", " ");
  return [verb, job.spec?.name ?? job.spec?.sae ?? job.spec?.saes?.join(", ") ?? `job ${job.id}`];
}

const PANELS = {
  add_dataset: "datasets",
  tokenize: "datasets",
  add_model: "models",
  train: "training",
  extract: "features",
  inspect: "features",
  label: "features",
  score: "features",
  steer: "steering",
};

/** The panel that a job belongs to; all that is about an SAE as a whole to SAEs. */
export const panelOf = (job) => PANELS[job.kind] ?? "saes";

/** What tells it from others of its kind, in a few words each. */
export function details(job) {
  const spec = job.spec ?? {};
  switch (job.kind) {
    case "add_model":
    case "add_dataset":
    case "add_sae":
      return [spec.source];
    case "tokenize":
      return [spec.dataset, spec.model, `windows of ${amount(spec.context, "tokens")}`];
    case "train":
      return [spec.tokenization, ...trained(spec, job.makes)];
    case "extract":
      return [known(spec.features) && amount(spec.features, "features"), `from ${amount(spec.tokens, "tokens")}`];
    case "label":
      return [spec.endpoint === "tokens" ? "by tokens" : `by ${spec.endpoint}`, spec.model];
    case "score":
      return [spec.methods?.join(", ")];
    case "export":
      return [spec.format];
    case "push":
      return [spec.repo];
    case "steer":
      return [spec.prompt ?? spec.messages?.at(-1)?.content];
    default:
      return [];
  }
}

/**
 * Of a training's axes: what one value is called, and what several are.
 * @type {Record<string, [((value: any) => string) | null, string]>}
 */
const AXES = {
  hook: [(hook) => hook, "hooks"],
  architecture: [null, "architectures"],
  width: [(width) => `width ${count(width)}`, "widths"],
  k: [(k) => `k ${count(k)}`, "values of k"],
  l1: [null, "weights of L1"],
  seed: [null, "seeds"],
};

/** "blocks.3.hook_resid_post", "width 2,048", "k 32"; of several SAEs "2 hooks × 3 widths: 6 SAEs", "k 32". */
function trained(spec, makes) {
  const [several, one] = [[], []];
  for (const [axis, [shown, plural]] of Object.entries(AXES)) {
    const value = spec[axis];
    if (Array.isArray(value)) several.push(`${count(value.length)} ${plural}`);
    else if (shown) one.push(shown(value));
  }
  const saes = makes?.names?.length ?? 1;
  const grid = several.length ? [several.join(" × ") + (saes > 1 ? `: ${count(saes)} SAEs` : "")] : [];
  return [...grid, ...one];
}

/** How far it is in its stage, 0 to 1; null when that is not known. */
export function done(job) {
  const { done, total } = job.progress ?? {};
  return total ? Math.min(done / total, 1) : null;
}

/** Whether its training loop is at work, which measures: in stage "train", or "train, pass 1 of 2". */
export const isTraining = (job) => job.progress?.stage.split(",")[0] === "train";

/** "train", "1,000 of 2,000 tokens": the stage and how far it has come. */
export function stage(job) {
  const progress = job.progress;
  if (!progress) return [job.state === "running" ? "starting" : "", ""];
  const { stage, done, total, unit } = progress;
  if (total === 1) return [stage, ""]; // one thing, done or not: its name says all
  if (total) return [stage, amountOf(done, total, unit)];
  return [stage, done ? amount(done, unit) : ""];
}

/** Why a waiting job waits. */
export function wait(job, jobs) {
  if (job.state === "paused") return "Paused" + (done(job) === null ? "" : ` at ${share(done(job))}`);
  const behind = job.after.filter((id) => jobs.get(id) && jobs.get(id).state !== "done");
  if (behind.length) return `Queued behind job ${behind.join(", ")}`;
  return job.state === "interrupted" ? "Interrupted, goes on by itself" : "Queued";
}

/** How a job ended: what went wrong first. */
export function outcome(job) {
  const took = between(job.started_at, job.ended_at);
  const after = took === null ? "" : ` after ${duration(took)}`;
  switch (job.state) {
    case "done":
      return `Done${took === null ? "" : ` in ${duration(took)}`}${found(job)}`;
    case "failed":
      return `Failed${after}${job.attempts > 1 ? `, attempt ${job.attempts}` : ""}`;
    case "partial":
      return `Only partly done${after}`;
    default:
      return `Stopped${after}${done(job) === null ? "" : ` at ${share(done(job))}`}`;
  }
}

/** Why it ended so: "source: there is no such file". */
export function reason(job) {
  if (!job.error || job.state === "done") return "";
  return [job.error.field, job.error.message].filter(Boolean).join(": ");
}

/** The last line that its worker wrote, where that says more than the reason. */
export function lastLine(job) {
  const line = isBad(job) ? (job.error?.log ?? "").trim().split("\n").at(-1).trim() : "";
  return line && !line.includes(job.error.message) ? line : "";
}

function found(job) {
  if (job.kind !== "train") return "";
  const result = job.result ?? {};
  if (!(result.saes?.length > 1)) return `, FVU ${number(result.fvu)} at L0 ${number(result.l0, 1)}`;
  return `, ${count(result.saes.length)} SAEs, FVU ${span(result.saes.map((sae) => sae.fvu))}`;
}

/** "0.100 to 0.300" */
function span(numbers) {
  const all = numbers.filter(known);
  const [least, most] = [number(Math.min(...all)), number(Math.max(...all))];
  return least === most ? least : `${least} to ${most}`;
}

/** The API's verbs that a job in its state takes. */
export function verbs(job) {
  const takes = {
    running: ["pause", "stop"],
    pausing: ["stop"],
    paused: ["resume", "stop"],
    queued: ["stop"],
    interrupted: ["stop"],
    failed: ["retry"],
    stopped: ["retry"],
    partial: ["retry"],
  };
  return takes[job.state] ?? [];
}

/**
 * After which step to ask for a training's metrics, to get the newest without the whole history; null when there is
 * nothing to ask for. `step` is the newest that is known.
 */
export function metricsAfter(job, step) {
  if (job.kind !== "train" || isEnded(job) || !job.progress) return null;
  const { batch_tokens, tokens, steps } = job.spec;
  let at = -1;
  if (isTraining(job)) at = Math.floor(job.progress.done / batch_tokens);
  if (job.progress.stage === "measure") at = steps ?? Math.ceil(tokens / batch_tokens);
  return at < 0 ? null : Math.max(step ?? -1, at - METRIC_STEPS, -1);
}

/** What to tell when jobs have become other than they were: "Train SAE pico-demo: done". */
export function changes(before, after) {
  const told = [];
  for (const job of after.values()) {
    const was = before.get(job.id);
    if (was?.state !== job.state) told.push(`${title(job).join(" ")}: ${job.state}`);
  }
  return told;
}
