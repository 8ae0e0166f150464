import { about, count, size } from "../lib/format.js";
import { numbersText } from "../lib/training_spec.js";
import { html } from "../ui/html.js";

const PARTS = {
  weights: "the model's weights",
  runtime: "runtime and libraries",
  loading: "while weights are converted",
  forward: "the model's forward pass",
  buffer: "buffer of activations",
  sae: "the SAE's parameters",
  gradients: "gradients",
  optimizer: "optimizer",
  step: "a step of the SAE",
  evaluation: "measuring while it trains",
  measuring: "measuring",
  reserve: "reserve, which must stay free",
};
const CHOICES = {
  precision: "precision", forward_tokens: "tokens in a pass", buffer_tokens: "tokens in the buffer", micro_tokens: "micro-batch", saes_at_once: "SAEs at once", whole_model: "whole model",
};
const NAMES = 8; // that are shown at once

/**
 * Whether a training fits and how long it takes, what it makes, and what would fit where it does not. `lacks`: what must
 * be said before that can be told; `use`: takes a field's value over.
 */
export function Plan({ answer: { found, failed, busy }, lacks, use }) {
  return html`<section class="card trainingplan" aria-labelledby="plan" aria-live="polite" aria-busy=${busy}>
    <h3><span id="plan">Plan</span> ${busy && html`<span class="details late">Working it out…</span>`}</h3>
    ${failed && html`<p class="details">${failed}</p>`}
    ${lacks && html`<p class="details">${lacks}</p>`}
    ${found && html`<p class=${`fits ${found.fits === false ? "refusal" : ""}`}>${fits(found)}</p>
      <p class="details">${[time(found), found.passes > 1 && `${count(found.passes)} passes over the text`, `${size(found.disk_bytes)} of disk`].filter(Boolean).join(" · ")}</p>
      ${found.fits === false && html`<${Ways} found=${found} use=${use} />`}
      <${Names} names=${found.names} />
      <${Parts} found=${found} />`}
  </section>`;
}

function fits({ fits, total_bytes, budget: { free_bytes, reserve_bytes, name } }) {
  if (fits === null) return `Takes ${size(total_bytes)} with a reserve of ${size(reserve_bytes)}; how much is free is not known`;
  return `${fits ? "Fits" : "Does not fit"}: ${size(total_bytes)} with a reserve of ${size(reserve_bytes)}, of ${size(free_bytes)} free (${name})`;
}

const time = ({ seconds }) => (seconds === null ? "How long is not known: nothing of this size has run here" : about(seconds).replace(/^./, (first) => first.toUpperCase()));

/** What would make it fit, each to be taken over. */
function Ways({ found, use }) {
  const ways = found.ways.filter((way) => way.fits);
  if (!ways.length) return html`<p class="help">${found.verdict}</p>`;
  const value = (way) => (typeof way.value === "boolean" ? (way.value ? "yes" : "no") : numbersText(way.value));
  return html`<p class="help">It would with:</p><p class="verbs">${ways.map((way) => html`<button type="button" key=${way.field} onClick=${() => use(way.field, value(way))}>
    ${way.field.replaceAll("_", " ")} ${value(way)} (${size(way.total_bytes)})</button>`)}</p>`;
}

function Names({ names }) {
  const more = names.length - NAMES;
  return html`<p class="makes"><b>${names.length === 1 ? "Makes one SAE:" : `Makes ${count(names.length)} SAEs:`}</b></p>
    <ul class="names">${names.slice(0, NAMES).map((name) => html`<li key=${name}><code>${name}</code></li>`)}</ul>
    ${more > 0 && html`<details><summary>And ${count(more)} more</summary><ul class="names">${names.slice(NAMES).map((name) => html`<li key=${name}><code>${name}</code></li>`)}</ul></details>`}`;
}

function Parts({ found }) {
  const chosen = Object.entries(found.choices).filter(([, { automatic }]) => automatic);
  return html`<details><summary>Part by part</summary>
    <table class="parts"><thead><tr><th scope="col">Part</th><th scope="col">At most</th><th scope="col">At the peak (${found.peak_phase})</th></tr></thead>
      <tbody>${found.parts.map(({ part, bytes, at_peak_bytes }) => html`<tr key=${part}><th scope="row">${PARTS[part] ?? part}</th><td>${size(bytes)}</td><td>${at_peak_bytes ? size(at_peak_bytes) : "—"}</td></tr>`)}
        <tr><th scope="row">total</th><td></td><td>${size(found.total_bytes)}</td></tr></tbody></table>
    <p class="help">Chosen by the studio: ${chosen.map(([name, { value }]) => `${CHOICES[name] ?? name} ${typeof value === "boolean" ? (value ? "yes" : "no") : numbersText(value)}`).join(", ")}.
      The peak is ${found.measured ? "from the formula and what a like run took" : "from the formula"}.</p>
  </details>`;
}
