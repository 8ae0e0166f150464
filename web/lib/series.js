// A line of a chart. Pure.

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

const MOST = 2000; // points of a line: more than a screen has pixels

/**
 * Long lines for drawing: of each stretch of steps a line keeps its least and its largest value, in their order, so that
 * no peak is lost; the newest measurement stays as it is. Stretches keep their places while a line grows, and a drawing
 * does not flicker. `log`: stretches are even on a logarithmic axis (steps above 0).
 * @param {number[]} steps ascending
 * @param {(number | null)[][]} lines a value for each step
 * @param {{most?: number, log?: boolean}} [how] `most`: points that are left at most
 * @returns {{steps: number[], lines: (number | null)[][]}}
 */
export function thinned(steps, lines, { most = MOST, log = false } = {}) {
  if (steps.length <= most) return { steps, lines };
  const stretches = log ? evenInLog(steps, most) : ofOneLength(steps.length - 1, most);
  stretches.push([steps.length - 1, steps.length]);
  const kept = stretches.flatMap(([from, to]) => (to - from > 1 ? [steps[from], steps[to - 1]] : [steps[from]]));
  return { steps: kept, lines: lines.map((values) => stretches.flatMap(([from, to]) => extremes(values, from, to))) };
}

function ofOneLength(count, most) {
  let length = 1;
  while (2 * Math.ceil(count / length) + 1 > most) length *= 2;
  return Array.from({ length: Math.ceil(count / length) }, (_, n) => [n * length, Math.min((n + 1) * length, count)]);
}

function evenInLog(steps, most) {
  const count = steps.length - 1;
  const width = Math.log(steps[count] / steps[0]) / (most / 2 - 2);
  const stretches = [];
  for (let from = 0, to = 1; from < count; from = to++) {
    const end = (Math.floor(Math.log(steps[from] / steps[0]) / width) + 1) * width;
    while (to < count && Math.log(steps[to] / steps[0]) < end) to++;
    stretches.push([from, to]);
  }
  return stretches;
}

function extremes(values, from, to) {
  if (to - from === 1) return [values[from]];
  let [least, largest] = [-1, -1];
  for (let at = from; at < to; at++) {
    if (values[at] === null) continue;
    if (least < 0 || values[at] < values[least]) least = at;
    if (largest < 0 || values[at] > values[largest]) largest = at;
  }
  if (least < 0) return [null, null];
  return least <= largest ? [values[least], values[largest]] : [values[largest], values[least]];
}

/** The place of the step that is nearest to `x`; -1 where there is none. */
export function nearest(steps, x) {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - steps[low - 1] < steps[low] - x ? low - 1 : Math.min(low, steps.length - 1);
}
