// How fast a job goes, as seen from here: over the last half minute of one stage. Pure.

import { known } from "./format.js";

const WINDOW_MS = 30_000;
const SHORTEST_MS = 1000;

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
