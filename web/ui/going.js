// How fast and how well a job goes, from what was heard of it last.

import { about, amount } from "../lib/format.js";
import { isTraining } from "../lib/jobs.js";
import { mean, rate } from "../lib/measures.js";
import { metrics, paces } from "../state.js";

/** What is measured of a training; of several SAEs the mean. */
export const meanOf = (job, name) => mean(metrics.value.get(job.id), name);

/** Units a second: the trainer's own figure, else as seen from here. */
export function speed(job) {
  const trained = isTraining(job) ? meanOf(job, "tokens_per_s") : null;
  const perSecond = trained ?? rate(paces.value.get(job.id));
  return perSecond && job.progress?.unit ? `${amount(perSecond, job.progress.unit)}/s` : "";
}

export function left(job) {
  const eta_s = job.progress?.eta_s;
  return job.state === "running" && eta_s ? `${about(eta_s)} left` : "";
}
