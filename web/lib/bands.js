// What a strength of a calibrated feature does: the bands between the strengths of 0.1, 0.5 and 2 nats. Pure.

/**
 * @typedef {{low: number | null, high: number | null}} Sides
 * @typedef {{kl: Record<string, Sides>, breaks: Sides & {why: string | null}}} Range as the API has it
 * @typedef {"hardly" | "slight" | "clear" | "strong" | "apart"} Name
 */

export const NATS = ["0.1", "0.5", "2"];
const NAMES = /** @type {Name[]} */ (["hardly", "slight", "clear", "strong"]);
const FAR = 1.25; // times the strength of the last mark: there a slider ends
const STEPS = 100; // of a slider, from 0 to its end
const SNAP = 0.02; // of that: so near to 0 is 0, for a pointer

/** On a slider, where there is room for a word only. */
export const WORDS = { hardly: "hardly", slight: "slight", clear: "clear", strong: "strong", apart: "falls apart" };

const WHY = { repetition: "it repeats itself", perplexity: "the model would hardly write it" };

/** @param {Range | null} range @returns {{from: number, to: number, name: Name}[]} from `-most` to `most`, without gaps */
export function bands(range, most) {
  if (!range) return [];
  const low = side(range, "low", most).map(({ from, to, name }) => ({ from: -to, to: -from, name })).reverse();
  return [...low, ...side(range, "high", most)];
}

/** Those of one side of 0, by the size of the strength. */
function side(range, end, most) {
  const size = (sides) => (sides?.[end] === null || sides?.[end] === undefined ? Infinity : Math.abs(sides[end]));
  const broken = Math.min(size(range.breaks), most);
  const marks = NATS.map((nats) => Math.min(size(range.kl[nats]), broken));
  const edges = [0, ...marks, broken];
  const found = NAMES.map((name, at) => ({ from: edges[at], to: Math.max(edges[at], edges[at + 1]), name }));
  return [...found, { from: broken, to: most, name: /** @type {Name} */ ("apart") }].filter(({ from, to }) => to > from);
}

/** How far a slider goes to either side, and its step, of which that is a multiple. @param {Range | null} range */
export function reach(range, fallback = 10) {
  const of = (sides) => [sides.low, sides.high].filter((value) => value !== null).map(Math.abs);
  const marks = range ? NATS.flatMap((nats) => of(range.kl[nats])) : [];
  const known = range ? [...marks, ...of(range.breaks).filter((one) => one <= 2 * Math.max(...marks, 0))] : [];
  const most = FAR * Math.max(0, ...known) || fallback;
  const step = round(most / STEPS);
  return { most: tidy(Math.ceil(most / step - 1e-9) * step), step };
}

/** The next of 1, 2, 5, 10, … that is not smaller. */
function round(x) {
  const ten = 10 ** Math.floor(Math.log10(x));
  return tidy([1, 2, 5, 10].find((one) => one * ten >= x * (1 - 1e-9)) * ten);
}

const tidy = (x) => Number(x.toPrecision(6));

/** A strength that a pointer has chosen: near 0 it is 0. */
export const snapped = (value, most) => (Math.abs(value) <= SNAP * most ? 0 : tidy(value));

/** In which band a strength lies. @param {Range} range @returns {Name} */
export function bandOf(range, strength) {
  const most = Math.max(Math.abs(strength), 1e-9) * 2;
  return side(range, strength < 0 ? "low" : "high", most).find(({ to }) => Math.abs(strength) <= to).name;
}

/** The strength that a slider begins at: half a nat, or a little more. @param {Range} range */
export function beginning(range) {
  const { high } = range.kl["0.5"];
  if (high === null) return 1;
  const digit = 10 ** (Math.floor(Math.log10(high)) - 1);
  return tidy(Math.ceil(high / digit - 1e-9) * digit);
}

/** What a strength does, as calibration has found it. @param {Range} range */
export function bandWords(range, strength) {
  if (strength === 0) return "";
  const name = bandOf(range, strength);
  if (name === "apart") return `texts fall apart: ${WHY[range.breaks.why] ?? range.breaks.why}`;
  return { hardly: "hardly any effect, under 0.1 nats", slight: "a slight effect, 0.1 to 0.5 nats", clear: "a clear effect, 0.5 to 2 nats", strong: "a strong effect, over 2 nats" }[name];
}

/** Strengths worth writing at, ascending: those of the marks to either side, and 0. @param {Range | null} range */
export function ladder(range) {
  if (!range) return [-2, -1, 0, 1, 2];
  const of = (end) => NATS.map((nats) => range.kl[nats][end]).filter((value) => value !== null);
  return [...of("low"), 0, ...of("high")].map((value) => Number(value.toPrecision(2))).sort((a, b) => a - b);
}
