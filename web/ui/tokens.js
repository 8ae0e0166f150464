import { heat } from "../lib/heat.js";
import { number } from "../lib/format.js";
import { html } from "./html.js";

/**
 * A text in its tokens, shaded by how strongly a feature fires on each; of what fires the value is shown on hover and
 * focus. `most`: the feature's largest activation.
 */
export function Tokens({ texts, values, most, peak }) {
  return html`<span class="tokens">${texts.map((text, at) => {
    const shade = heat(values[at], most);
    if (!shade) return text;
    return html`<span key=${at} class=${at === peak ? "token peak" : "token"} tabindex="0" style=${{ "--heat": shade }}
      title=${number(values[at], 2)}>${text}</span>`;
  })}</span>`;
}

/** The part of an example that fits in a line, its peak in the middle: `{texts, values, peak}`. */
export function around(example, before = 10, after = 8) {
  const { texts, activations, peak } = example;
  const first = Math.max(peak - before, 0);
  const oneLine = texts.slice(first, peak + after).map((text) => text.replace(/\s*\n\s*/g, " ↵ "));
  return { texts: oneLine, values: activations.slice(first, peak + after), peak: peak - first };
}
