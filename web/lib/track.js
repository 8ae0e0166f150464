// The measurements of a training as lines that stay short, however long it goes on. Pure.

import { known } from "./format.js";

export const MOST = 2000; // points of a line; an even number, so that the last one stays when every other goes

/**
 * A line that grows: of `seen` measurements one of `every` is kept, and always the newest; it is `loose` when it goes
 * as soon as another comes.
 * @typedef {{steps: number[], values: number[], every: number, seen: number, loose: boolean}} Line
 */

/** @returns {Line} */
export const emptyLine = () => ({ steps: [], values: [], every: 1, seen: 0, loose: false });

/**
 * Add a measurement, in place. A training that has gone back to a checkpoint measures some steps anew: what was known
 * of them and of later ones is forgotten.
 */
export function grow(line, step, value, most = MOST) {
  if (step <= line.steps.at(-1)) forget(line, step);
  if (line.loose) cut(line, line.steps.length - 1);
  line.steps.push(step);
  line.values.push(value);
  line.loose = line.seen++ % line.every !== 0;
  if (line.loose || line.steps.length <= most) return;
  line.steps = line.steps.filter((_, at) => at % 2 === 0);
  line.values = line.values.filter((_, at) => at % 2 === 0);
  line.every *= 2;
}

function forget(line, step) {
  cut(line, line.steps.findIndex((one) => one >= step));
  line.loose = false;
  line.seen = line.steps.length * line.every;
}

function cut(line, left) {
  line.steps.length = left;
  line.values.length = left;
}

/** Add what was measured of one SAE to its lines, `sae → value → line`, in place. */
export function take(track, { step, sae = null, values }, most = MOST) {
  if (!track.has(sae)) track.set(sae, new Map());
  const lines = track.get(sae);
  for (const [name, value] of Object.entries(values)) {
    if (!known(value)) continue;
    if (!lines.has(name)) lines.set(name, emptyLine());
    grow(lines.get(name), step, value, most);
  }
}

/** The last step of which anything is known of an SAE; -1 before. */
export const newestStep = (track, sae) => Math.max(-1, ...[...(track.get(sae)?.values() ?? [])].map((line) => line.steps.at(-1)));

/**
 * Lines over a common axis: `{steps, lines: [{name, values}]}`, null where one was not measured. `lines`: `{name, steps,
 * values}` each, their steps in order.
 */
export function merged(lines) {
  if (lines.length === 1) return { steps: [...lines[0].steps], lines: [{ name: lines[0].name, values: [...lines[0].values] }] };
  const steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
  const at = new Map(steps.map((step, n) => [step, n]));
  return {
    steps,
    lines: lines.map((line) => {
      const values = new Array(steps.length).fill(null);
      line.steps.forEach((step, n) => (values[at.get(step)] = line.values[n]));
      return { name: line.name, values };
    }),
  };
}
