import { number } from "../lib/format.js";
import { heat, level } from "../lib/heat.js";
import { runs, visible } from "../lib/token_runs.js";
import { html } from "./html.js";

/**
 * A text in its tokens, shaded by how strongly a feature fires on each, and underlined the more the stronger it is, for
 * those who do not see the colour. The value is shown on hover and focus; one Tab leads to the text, arrows go through
 * what fires. `most`: the feature's largest activation; `peak`: place of the token that stands out; `breaks`: lines end
 * where they do in the text.
 */
export function Tokens({ texts, values, most, peak, breaks = false }) {
  const pieces = runs(texts, values, peak);
  const first = pieces.findIndex((one) => one.peak && one.value > 0);
  const focused = first < 0 ? pieces.findIndex((one) => one.value > 0) : first;
  return html`<span class="tokens" onKeyDown=${among}>${pieces.map((one, at) =>
    one.value > 0 || one.peak
      ? html`<span key=${at} class=${one.peak ? "token peak" : "token"} tabindex=${at === focused ? 0 : -1} data-level=${level(one.value, most)}
          data-value=${number(one.value, 2)} aria-description=${number(one.value, 2)} style=${{ "--heat": heat(one.value, most) }}>${visible(one.text, breaks)}</span>`
      : visible(one.text, breaks))}</span>`;
}

/** Left and right lead from one token that fires to the next. */
export function among(event) {
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!way) return;
  const all = [...event.currentTarget.querySelectorAll("[data-level]")];
  all[all.indexOf(event.target) + way]?.focus();
  event.preventDefault();
}

/** The same in one line of a list, its peak below those of the other lines; nothing in it can be focused. */
export function Line({ texts, values, most, peak }) {
  const pieces = runs(texts, values, peak);
  const at = pieces.findIndex((one) => one.peak);
  const drawn = (some) => some.map((one, n) =>
    one.value > 0
      ? html`<span key=${n} class=${one.peak ? "token peak" : "token"} data-level=${level(one.value, most)} style=${{ "--heat": heat(one.value, most) }}>${visible(one.text)}</span>`
      : visible(one.text));
  return html`<span class="tokens line"><span class="before"><span>${drawn(pieces.slice(0, at))}</span></span><span class="from">${drawn(pieces.slice(at))}</span></span>`;
}
