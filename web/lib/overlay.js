// The SAEs of several trainings as lines of the same charts. Pure.

import { merged } from "./track.js";

/**
 * A line for each SAE of each training, in a fixed order, which gives it its colour. What is not measured by name is of
 * the only SAE there is. Names that are alike are told apart by their training.
 * @param {{id: number, names: string[], batch: number, track: Map}[]} runs
 * @returns {{key: string, name: string, id: number, sae: string | null, batch: number, values: Map}[]}
 */
export function linesOf(runs) {
  const lines = runs.flatMap(({ id, names, batch, track }) =>
    [...track].map(([sae, values]) => ({ key: `${id} ${sae ?? ""}`, name: sae ?? names[0] ?? "", id, sae, batch, values })));
  const times = (name) => lines.filter((one) => one.name === name).length;
  const alike = new Set(lines.map((one) => one.name).filter((name) => times(name) > 1));
  return lines.map((line) => (alike.has(line.name) ? { ...line, name: `${line.name} (job ${line.id})` } : line));
}

/**
 * What a chart of one value takes, `{steps, lines}`; of a line that is off, or was not measured, nothing but its place.
 * @param {Set<string>} off keys of lines
 * @param {boolean} byTokens over training tokens instead of steps
 */
export function chartOf(lines, value, off, byTokens) {
  return merged(lines.map(({ key, name, batch, values }) => {
    const line = off.has(key) ? null : values.get(value);
    if (!line) return { name, steps: [], values: [] };
    return { name, steps: byTokens ? line.steps.map((step) => step * batch) : line.steps, values: line.values };
  }));
}
