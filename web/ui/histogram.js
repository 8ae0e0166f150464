import { html } from "./html.js";

/** Bars of equal width from the first bin that has any to the last; `edges`, one more than bins; `label`: what they count. */
export function Bars({ counts: all, edges, label }) {
  const first = Math.max(all.findIndex((count) => count > 0), 0);
  const counts = all.slice(first, all.findLastIndex((count) => count > 0) + 1);
  const [low, high] = [edges[first], edges[first + counts.length]].map((edge) => Number(edge?.toPrecision(3)));
  const most = Math.max(...counts, 1);
  const width = 100 / counts.length;
  return html`<figure class="bars">
    <svg viewBox="0 0 100 32" preserveAspectRatio="none" role="img" aria-label=${label}>
      ${counts.map((count, at) => html`<rect key=${at} x=${at * width} width=${width * 0.9}
        y=${32 - (32 * count) / most} height=${(32 * count) / most} />`)}
    </svg>
    <figcaption><span>${low}</span><span>${high}</span></figcaption>
  </figure>`;
}
