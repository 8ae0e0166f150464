// Trainings as rows of a list: what stands in them, in which order, and which are shown. Pure.

import { isEnded, isLive } from "./jobs.js";
import { known } from "./format.js";

/** Of each SAE of a training what is known of it: `{sae, fvu, l0, dead, …}`, from its result, else from its measures. */
export function saesOf(job, measures) {
  const names = job.makes?.names ?? [job.spec.name];
  const results = new Map((job.result?.saes ?? []).map((one) => [one.sae, one]));
  const failed = new Map((job.result?.failed ?? []).map((one) => [one.sae, one]));
  const alone = names.length === 1 ? { ...measures?.of.get(null), ...(isEnded(job) ? job.result : {}) } : {};
  return names.map((sae) => ({ ...alone, ...measures?.of.get(sae), ...results.get(sae), sae, failed: failed.get(sae)?.message }));
}

/** [0.1, 0.3]: the least and the most of what is known; null when nothing is. */
export function span(saes, name) {
  const found = saes.map((one) => one[name]).filter(known);
  return found.length ? [Math.min(...found), Math.max(...found)] : null;
}

export const STATES = { all: () => true, running: (job) => !isEnded(job), done: (job) => job.state === "done", failed: (job) => ["failed", "partial"].includes(job.state), stopped: (job) => job.state === "stopped" };

const ORDERS = {
  newest: (a, b) => b.job.id - a.job.id,
  fvu: (a, b) => (span(a.saes, "fvu")?.[0] ?? Infinity) - (span(b.saes, "fvu")?.[0] ?? Infinity),
  name: (a, b) => a.job.spec.name.localeCompare(b.job.spec.name),
};

/** Rows `{job, saes}` that have all the words of a search in what was asked, those at work first. */
export function rowsOf(rows, { find = "", state = "all", sort = "newest" }) {
  const words = find.toLowerCase().split(/\s+/).filter(Boolean);
  const text = ({ job: { id, spec } }) => [id, spec.name, spec.tokenization, spec.hook, spec.architecture].flat().join(" ").toLowerCase();
  const kept = rows.filter((row) => (STATES[state] ?? STATES.all)(row.job) && words.every((word) => text(row).includes(word)));
  return kept.sort((a, b) => Number(isLive(b.job)) - Number(isLive(a.job)) || (ORDERS[sort] ?? ORDERS.newest)(a, b) || b.job.id - a.job.id);
}
