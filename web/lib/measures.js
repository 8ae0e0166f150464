// What is measured of the SAEs of a training on its way, and how fast a job goes, as seen from here. Pure.

import { known } from "./format.js";

const WINDOW_MS = 30_000; // of one stage, over which a pace is taken
const SHORTEST_MS = 1000;

/** What is known once a metric of one SAE, or of the job as a whole (sae null), has come: `{step, of: sae → values}`. */
export function measuresAfter(before, { step, sae = null, values }) {
  const of = new Map(before?.of ?? []);
  of.set(sae, { ...of.get(sae), ...values });
  return { step, of };
}

/** Of how many SAEs something is known. */
export const measured = (measures) => [...(measures?.of.keys() ?? [])].filter((sae) => sae !== null).length;

/** The mean of a value over the SAEs that have it; null when none has. */
export function mean(measures, name) {
  const found = [...(measures?.of.values() ?? [])].map((values) => values[name]).filter(known);
  return found.length ? found.reduce((sum, x) => sum + x, 0) / found.length : null;
}

/**
 * The pace once `progress` is heard at `at` (ms).
 * @returns {{stage: string, points: [number, number][]}} points: when, and how far it was
 */
export function paceAfter(pace, progress, at) {
  const last = pace?.points.at(-1);
  const goesOn = last && pace.stage === progress.stage && progress.done >= last[1] && at >= last[0];
  const points = goesOn ? pace.points.filter(([when]) => at - when <= WINDOW_MS) : [];
  return { stage: progress.stage, points: [...points, [at, progress.done]] };
}

/** Units a second; null while that cannot be said. */
export function rate(pace) {
  if (!pace) return null;
  const [from, to] = [pace.points[0], pace.points.at(-1)];
  const [ms, done] = [to[0] - from[0], to[1] - from[1]];
  const perSecond = (1000 * done) / ms;
  return ms >= SHORTEST_MS && done > 0 && known(perSecond) ? perSecond : null;
}
