import { useState } from "preact/hooks";
import { count } from "../lib/format.js";
import { html } from "./html.js";

const HEIGHT = 32;
const short = (edge) => Number(edge?.toPrecision(3));

/**
 * Bars of equal width from the first bin that has any to the last, as high as the logarithm of what they count, so that
 * what is rare is seen. `edges`: one more than bins; `label`: what they count; `unit`: what it is, many of them. What a
 * bar counts is told on hover, and under the arrow keys.
 */
export function Bars({ counts: all, edges, label, unit = "activations" }) {
  const [at, setAt] = useState(null);
  const first = Math.max(all.findIndex((one) => one > 0), 0);
  const counts = all.slice(first, all.findLastIndex((one) => one > 0) + 1);
  const most = Math.log1p(Math.max(...counts, 1));
  const width = 100 / counts.length;
  const bin = (n) => `${short(edges[first + n])} to ${short(edges[first + n + 1])}: ${count(counts[n])} ${unit}`;
  const keys = (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    setAt(Math.min(Math.max((at ?? (way > 0 ? -1 : counts.length)) + way, 0), counts.length - 1));
    event.preventDefault();
  };
  const point = ({ currentTarget, clientX }) => {
    const { left, width: whole } = currentTarget.getBoundingClientRect();
    setAt(Math.min(Math.max(Math.floor(((clientX - left) / whole) * counts.length), 0), counts.length - 1));
  };
  return html`<figure class="bars">
    <div class="plot" role="img" tabindex="0" aria-label=${`${label}${at === null ? "" : `; ${bin(at)}`}`} onKeyDown=${keys} onMouseMove=${point} onMouseLeave=${() => setAt(null)} onBlur=${() => setAt(null)}>
      <svg viewBox="0 0 100 ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">
        ${counts.map((one, n) => html`<rect key=${n} class=${n === at ? "pointed" : ""} x=${n * width} width=${width * 0.9}
          y=${HEIGHT - (HEIGHT * Math.log1p(one)) / most} height=${(HEIGHT * Math.log1p(one)) / most} />`)}
      </svg></div>
    <figcaption>${at === null ? html`<span>${short(edges[first])}</span><span>log counts</span><span>${short(edges[first + counts.length])}</span>` : html`<span>${bin(at)}</span>`}</figcaption>
  </figure>`;
}
