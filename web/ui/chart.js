import { useEffect, useRef, useState } from "preact/hooks";
import { count, number } from "../lib/format.js";
import { nearest } from "../lib/series.js";
import { scheme } from "./colour.js";
import { html } from "./html.js";
import { sheet } from "./later.js";

const ROWS = 20; // of the table

for (const href of ["/vendor/uplot.css", "/css/chart.css"]) sheet(href).catch(() => {}); // it can be read without

/**
 * Lines over steps, which all charts of a page point at together. What it shows is also there as a table.
 * @param {object} shown
 * @param {string} shown.title
 * @param {number[]} shown.steps ascending
 * @param {{name: string, values: (number | null)[], colour?: number}[]} shown.lines a value for each step; `colour`: of the
 *   page's series, from 0, where it is not that of its place
 * @param {number} [shown.span] over how many measurements they are smoothed, the raw ones faint behind
 * @param {number} [shown.digits] of a value
 * @param {boolean} [shown.logX] a logarithmic axis; what is at 0 is not drawn
 * @param {(x: number) => string} [shown.xWords] what a step is called
 * @param {string} [shown.xTitle] what a step is, where it is none
 * @param {(y: number) => string} [shown.yWords] what a value is called, instead of its digits
 * @param {(number | null)[]} [shown.yRange] least and largest value of the axis; null: as the values have it
 */
export function Chart({ title, steps, lines, span = 0, digits = 3, logX = false, xWords, xTitle = xWords ? "When" : "Step", yWords, yRange }) {
  const box = useRef(null);
  const drawn = useRef(null);
  const newest = useRef(null);
  newest.current = [steps, lines, span];
  const [pointed, setPointed] = useState(null);
  const [read, setRead] = useState(false); // by key, and so told aloud
  const shape = JSON.stringify([lines.map(({ name, colour }) => [name, colour]), span > 0, logX, digits, yRange, scheme.value]);
  useEffect(() => {
    let gone = false;
    import("./plot.js").then(({ plot }) => {
      if (gone || !box.current) return; // the box goes at once, this is told of it only after the next frame
      const colourOf = (at) => lines[at].colour ?? at;
      const names = lines.map(({ name }) => name || title);
      const how = { names, colourOf, smooth: span > 0, digits, logX, xWords, yWords, yRange, onCursor: setPointed };
      drawn.current = plot(box.current, how);
      drawn.current.show(...newest.current);
    });
    return () => {
      gone = true;
      drawn.current?.destroy();
      drawn.current = null;
    };
  }, [shape]);
  useEffect(() => drawn.current?.show(steps, lines, span), [steps, lines, span]);
  const keys = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    setRead(true);
    drawn.current?.step(by);
  };
  const blur = () => {
    setRead(false);
    drawn.current?.leave();
  };
  const words = (value) => (value === null || value === undefined ? "—" : yWords ? yWords(value) : number(value, digits));
  const at = pointed === null ? -1 : nearest(steps, pointed);
  const step = (value) => (xWords ?? count)(value);
  const now = ({ values }) => words(at < 0 ? values.findLast((value) => value !== null) : values[at]);
  const readout = at < 0 ? "" : xWords ? step(steps[at]) : `step ${step(steps[at])}`;
  const told = [readout, ...lines.map((line) => `${line.name} ${now(line)}`)].join(", ");
  return html`<figure class="chart" aria-label=${title}>
    <figcaption><b>${title}</b> <span class="figure"><span class="readout">${readout}</span> ${lines.length === 1 && now(lines[0])}</span></figcaption>
    <div class="canvas" ref=${box} role="group" tabindex="0" aria-label=${`${title}: arrow keys read its values`}
      onKeyDown=${keys} onBlur=${blur}></div>
    <p class="unseen" aria-live="polite">${read && at >= 0 && told}</p>
    ${lines.length > 1 && html`<${Legend} lines=${lines} title=${title} now=${now} drawn=${drawn} />`}
    <${Data} title=${title} steps=${steps} lines=${lines} step=${step} words=${words} head=${xTitle} />
  </figure>`;
}

/** The lines' names and values: each is a button that hides its line, and raises it while it is pointed at. */
function Legend({ lines, title, now, drawn }) {
  const [hidden, setHidden] = useState(new Set());
  const toggle = (at, name) => {
    const off = !hidden.has(name);
    drawn.current?.hide(at, off);
    setHidden((was) => new Set(off ? [...was, name] : [...was].filter((one) => one !== name)));
  };
  return html`<ul class="legend" aria-label="Lines">${lines.map((line, at) => {
    const { name, colour = at } = line;
    const raise = () => drawn.current?.raise(at);
    const lower = () => drawn.current?.raise(null);
    return html`<li key=${name}><button type="button" aria-pressed=${!hidden.has(name)} style=${{ "--of": `var(--series-${(colour % 8) + 1})` }}
      onClick=${() => toggle(at, name)} onFocus=${raise} onBlur=${lower} onMouseEnter=${raise} onMouseLeave=${lower}>
      <i class=${colour < 8 ? "" : "dashed"} aria-hidden="true"></i> ${name || title} <span class="figure">${now(line)}</span></button></li>`;
  })}</ul>`;
}

function Data({ title, steps, lines, step, words, head }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.currentTarget.open)}><summary>Show data</summary>
    ${open && html`<div class="scrolled" tabindex="0" role="group" aria-label=${`Data of ${title}`}><table><thead><tr><th scope="col">${head}</th>
      ${lines.map(({ name }) => html`<th scope="col" key=${name}>${name || title}</th>`)}</tr></thead>
    <tbody>${every(steps, ROWS).map((at) => html`<tr key=${at}><td>${step(steps[at])}</td>
      ${lines.map(({ name, values }) => html`<td key=${name}>${words(values[at])}</td>`)}</tr>`)}</tbody></table></div>`}
  </details>`;
}

/** Places of some of them, evenly, the last among them. */
function every(steps, most) {
  const stride = Math.max(1, Math.ceil(steps.length / most));
  return steps.map((_, at) => at).filter((at) => (steps.length - 1 - at) % stride === 0);
}
