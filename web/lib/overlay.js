// The SAEs of several trainings as lines of the same charts. Pure.

import { merged } from "./track.js";

const DASHED = 14; // past the eighth colour lines are dashed (ui/plot.js)

/**
 * A line for each SAE of each training, in a fixed order, which gives it its colour. What is not measured by name is of
 * the only SAE there is. Names that are alike are told apart by their training.
 * @param {{id: number, names: string[], batch: number, track: Map}[]} runs
 * @returns {{key: string, name: string, id: number, sae: string | null, batch: number, values: Map}[]}
 */
export function linesOf(runs) {
  const lines = runs.flatMap(({ id, names, batch, track }) =>
    [...track].sort(([a], [b]) => names.indexOf(a) - names.indexOf(b)).map(([sae, values]) => ({ key: `${id} ${sae ?? ""}`, name: sae ?? names[0] ?? "", id, sae, batch, values })));
  const times = (name) => lines.filter((one) => one.name === name).length;
  const alike = new Set(lines.map((one) => one.name).filter((name) => times(name) > 1));
  return lines.map((line) => (alike.has(line.name) ? { ...line, name: `${line.name} (job ${line.id})` } : line));
}

/**
 * What a chart of one value takes, `{steps, lines}`: the lines that are not off and of which it was measured, each in the
 * colour of its place among all.
 * @param {Set<string>} off keys of lines
 * @param {boolean} byTokens over training tokens instead of steps
 */
export function chartOf(lines, value, off, byTokens) {
  const drawn = lines.map((line, colour) => ({ ...line, colour, line: line.values.get(value) })).filter(({ key, line }) => line && !off.has(key));
  const chart = merged(drawn.map(({ name, batch, line }) => ({ name, steps: byTokens ? line.steps.map((step) => step * batch) : line.steps, values: line.values })));
  return { steps: chart.steps, lines: chart.lines.map((line, n) => ({ ...line, colour: drawn[n].colour })) };
}

/** A chart with what its lines are held against, `{name, value}` each: lines that stay where they are, dashed. */
export function held({ steps, lines }, levels) {
  const level = ({ name, value }, n) => ({ name, values: new Array(steps.length).fill(value), colour: DASHED + n });
  return { steps, lines: lines.length === 1 ? [...lines, ...levels.map(level)] : lines };
}
