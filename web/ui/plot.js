// A chart's canvas. It knows uPlot and no component; what it draws comes as arrays, as often as one likes.

import UPlot from "uplot";
import { number } from "../lib/format.js";
import { smoothed, thinned } from "../lib/series.js";
import { colour } from "./colour.js";

const HEIGHT_PX = 180;
const DRAW_MS = 250; // a training may measure ten times a second; nobody reads more than four
const WORDED = [0.5, 1, 2, 5, 10, 20, 50, 100]; // steps of an axis whose values are words
const SYNC = "x"; // all charts of a page share their cursor

/** Every colour that the canvas needs, as the page's style has them at this moment. */
function colours() {
  const words = getComputedStyle(document.documentElement).getPropertyValue("--words").trim();
  const series = Array.from({ length: 8 }, (_, at) => colour(`--series-${at + 1}`));
  return { text: colour("--muted"), line: colour("--line"), font: `12px ${words}`, series };
}

/**
 * Draw in `box`. `names`: of the lines; `onCursor`: told the place in `steps` that is pointed at, or null.
 * @returns {{show: Function, step: Function, leave: Function, raise: Function, hide: Function, destroy: Function}}
 */
export function plot(box, { names, colourOf, smooth, digits, logX, xWords, yWords, yRange, onCursor }) {
  let shown = { steps: [], lines: [], span: 0 };
  let drawnAt = 0;
  let [timer, frame] = [0, 0];
  const at = ({ cursor, data }) => onCursor(cursor.idx == null || cursor.left < 0 ? null : data[0][cursor.idx]);
  const settings = options({ names, colourOf, smooth, digits, logX, xWords, yWords, yRange }, box.clientWidth);
  const canvas = new UPlot({ ...settings, hooks: { setCursor: [at] } }, [[], ...settings.series.slice(1).map(() => [])], box);
  /** Its types do not know of the last `true`: the charts beside it are told. */
  const point = (left, top) => /** @type {any} */ (canvas).setCursor({ left, top }, true, true);
  const watch = new ResizeObserver(([{ contentRect }]) => contentRect.width && canvas.setSize({ width: contentRect.width, height: HEIGHT_PX }));
  watch.observe(box);

  function draw() {
    drawnAt = performance.now();
    frame = 0;
    const data = dataOf(shown, smooth, logX);
    const zoom = zoomed(canvas);
    canvas.setData(data, !zoom);
    if (zoom) canvas.setScale("x", zoom);
  }

  /** What the drawing is of from now on; a hidden page has no frames, and draws when it is seen again. */
  function show(steps, lines, span) {
    shown = { steps, lines, span };
    if (timer || frame) return;
    timer = setTimeout(() => {
      timer = 0;
      frame = requestAnimationFrame(draw);
    }, Math.max(drawnAt + DRAW_MS - performance.now(), 0));
  }

  /** Point at the next place, by as many as `by`. */
  function step(by) {
    const steps = canvas.data[0];
    if (!steps.length) return;
    const from = canvas.cursor.left < 0 ? (by < 0 ? steps.length : -1) : canvas.cursor.idx;
    const to = Math.min(Math.max(from + by, 0), steps.length - 1);
    point(canvas.valToPos(steps[to], "x"), HEIGHT_PX / 2);
  }

  const place = (line) => (smooth ? 2 * line + 2 : line + 1);
  return {
    show,
    step,
    leave: () => point(-10, -10),
    raise: (line) => canvas.setSeries(line === null ? null : place(line), { focus: true }),
    hide(line, hidden) {
      canvas.setSeries(place(line), { show: !hidden });
      if (smooth) canvas.setSeries(place(line) - 1, { show: !hidden });
    },
    destroy() {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      watch.disconnect();
      canvas.destroy();
    },
  };
}

/** The stretch that a person has chosen by dragging; null when all is shown. */
function zoomed(canvas) {
  const steps = canvas.data[0];
  const { min, max } = canvas.scales.x;
  return steps.length > 1 && (min > steps[0] || max < steps.at(-1)) ? { min, max } : null;
}

/** @returns {UPlot.AlignedData} */
function dataOf({ steps, lines, span }, smooth, logX) {
  const first = logX ? steps.findIndex((step) => step > 0) : 0; // 0 has no place on a logarithmic axis
  const all = lines.flatMap(({ values }) => (smooth ? [values, smoothed(values, span)] : [values]));
  const from = first < 0 ? steps.length : first;
  const cut = (values) => (from ? values.slice(from) : values);
  const drawn = thinned(cut(steps), all.map(cut), { log: logX });
  return [drawn.steps, ...drawn.lines];
}

/** A little more than the values take; what does not change lies in the middle, and 0 at the foot. */
function around(min, max) {
  if (min !== max) return UPlot.rangeNum(min, max, 0.1, true);
  return min === 0 ? [0, 1] : [min - Math.abs(min) / 10, min + Math.abs(min) / 10];
}

/** @returns {UPlot.Options} */
function options({ names, colourOf, smooth, digits, logX, xWords, yWords, yRange }, width) {
  const { text, line, font, series } = colours();
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { show: false }, font };
  const worded = (words) => (words ? { values: (_, splits) => splits.map((value) => (value === null ? "" : words(value))) } : {});
  const lines = names.flatMap((name, at) => {
    const place = colourOf(at);
    // Past the eighth line colours come again, and tell nothing alone.
    const one = { label: name, stroke: series[place % 8], width: 1.5, dash: place < 8 ? undefined : [6, 3], spanGaps: true, points: { show: false },
      value: (_, value) => number(value, digits) };
    return smooth ? [{ ...one, width: 1, alpha: 0.3 }, one] : [one];
  });
  /** @returns {UPlot.Range.MinMax} */
  const range = (_, min, max) => {
    const [low, high] = around(min ?? 0, max ?? 1);
    return [yRange?.[0] ?? low, yRange?.[1] ?? high];
  };
  return {
    width,
    height: HEIGHT_PX,
    scales: { x: { time: false, distr: logX ? 3 : 1 }, y: { range } },
    axes: [{ ...axis, size: 30, ...(xWords ? { incrs: WORDED, space: 72 } : {}), ...worded(xWords) }, { ...axis, size: 56, ...worded(yWords) }],
    series: [{}, ...lines],
    cursor: { y: false, sync: { key: SYNC, scales: ["x", null] }, drag: { x: true, y: false } },
    focus: { alpha: 0.2 },
    legend: { show: false },
  };
}
