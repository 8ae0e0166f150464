// The measurements of a training as the lines of a chart. Pure.

import { known } from "./format.js";

/**
 * Of metrics, `{step, sae, values}` each, the lines of a value: `{steps, lines: [{name, values}]}`, a line for each SAE
 * that has it, null where it was not measured.
 */
export function linesOf(metrics, value) {
  const steps = [...new Set(metrics.filter((one) => known(one.values[value])).map((one) => one.step))].sort((a, b) => a - b);
  const at = new Map(steps.map((step, n) => [step, n]));
  const lines = new Map();
  for (const { step, sae, values } of metrics) {
    if (!known(values[value])) continue;
    const name = sae ?? "";
    if (!lines.has(name)) lines.set(name, new Array(steps.length).fill(null));
    lines.get(name)[at.get(step)] = values[value];
  }
  return { steps, lines: [...lines].map(([name, values]) => ({ name, values })) };
}

/**
 * A line smoothed: the mean of what came before, in which what is `span` measurements old counts 1/e. It begins at the
 * first measurement, without a bias towards 0.
 */
export function smoothed(values, span) {
  if (span <= 0) return values;
  const keep = Math.exp(-1 / span);
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = keep * sum + value;
    weight = keep * weight + 1;
    return sum / weight;
  });
}
