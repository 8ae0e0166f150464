import { useEffect, useRef } from "preact/hooks";
import { number } from "../lib/format.js";
import { smoothed } from "../lib/series.js";
import { colour, scheme } from "./colour.js";
import { html } from "./html.js";

const HEIGHT_PX = 180;
const SYNC = "steps"; // all charts of a page share their cursor

/**
 * Lines over steps. `lines`: `{name, values}` each; `span`: over how many measurements they are smoothed, the raw ones
 * faint behind. What it shows is also there as a table.
 */
export function Chart({ title, steps, lines, span = 0, digits = 3 }) {
  const box = useRef(null);
  const plot = useRef(null);
  const shape = lines.map(({ name }) => name).join("\n") + (span > 0) + scheme.value;
  useEffect(() => {
    let gone = false;
    import("uplot").then(({ default: UPlot }) => {
      if (gone) return;
      plot.current = new UPlot(options(title, lines, span, digits, box.current.clientWidth), data(steps, lines, span), box.current);
    });
    const watch = new ResizeObserver(([{ contentRect }]) => contentRect.width && plot.current?.setSize({ width: contentRect.width, height: HEIGHT_PX }));
    watch.observe(box.current);
    return () => {
      gone = true;
      watch.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data(steps, lines, span)), [steps, lines, span]);
  const newest = (values) => number(values.findLast((value) => value !== null), digits);
  return html`<figure class="chart" aria-label=${title}>
    <figcaption><b>${title}</b> ${lines.length === 1 && html`<span class="figure">${newest(lines[0].values)}</span>`}</figcaption>
    <div ref=${box}></div>
    <details><summary>Show data</summary><table><thead><tr><th scope="col">Step</th>${lines.map(({ name }) => html`<th scope="col" key=${name}>${name || title}</th>`)}</tr></thead>
      <tbody>${every(steps, 20).map((at) => html`<tr key=${at}><td>${steps[at]}</td>${lines.map(({ name, values }) => html`<td key=${name}>${number(values[at], digits)}</td>`)}</tr>`)}</tbody></table></details>
  </figure>`;
}

/** Places of some twenty of them, the last among them. */
function every(steps, most) {
  const stride = Math.max(1, Math.ceil(steps.length / most));
  return steps.map((_, at) => at).filter((at) => (steps.length - 1 - at) % stride === 0);
}

function data(steps, lines, span) {
  return [steps, ...lines.flatMap(({ values }) => (span > 0 ? [values, smoothed(values, span)] : [values]))];
}

function options(title, lines, span, digits, width) {
  const words = getComputedStyle(document.documentElement).getPropertyValue("--words").trim();
  const text = colour("--muted");
  const axis = { stroke: text, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: `12px ${words}` };
  const series = lines.flatMap(({ name }, at) => {
    const stroke = colour(`--series-${(at % 8) + 1}`);
    const line = { label: name || title, stroke, width: 1.5, spanGaps: true, points: { show: false }, value: (_, value) => number(value, digits) };
    return span > 0 ? [{ ...line, label: `${line.label} (raw)`, width: 1, alpha: 0.3 }, line] : [line];
  });
  return {
    width,
    height: HEIGHT_PX,
    scales: { x: { time: false } },
    axes: [axis, { ...axis, size: 52 }],
    series: [{ label: "Step" }, ...series],
    cursor: { sync: { key: SYNC }, drag: { x: true, y: false } },
    legend: { show: true, live: true },
  };
}
