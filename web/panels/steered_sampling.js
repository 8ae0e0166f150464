import { size } from "../lib/format.js";
import { html } from "../ui/html.js";
import { DEFAULTS } from "./steered_desk.js";

/** Names as the API has them. @type {[name: string, label: string, least: number, most: number, step: number, about: string][]} */
const FIELDS = [
  ["temperature", "Temperature", 0, 5, 0.1, "0 takes the likeliest token"],
  ["top_p", "Top-p", 0.01, 1, 0.01, "of the likeliest tokens, as many as have this probability"],
  ["top_k", "Top-k", 0, 1_000_000, 1, "of the likeliest tokens, so many; 0: all"],
  ["repetition_penalty", "Repetition penalty", 0.1, 10, 0.05, "above 1: tokens that are there come less often"],
  ["seed", "Seed", 0, 2_147_483_647, 1, "the same for a text and its baseline"],
];
const SAID = { times: "strengths ×", top_p: "top-p", top_k: "top-k" };
const PRECISIONS = ["fp32", "bf16", "fp16", "int8", "nf4"];

/**
 * How tokens are chosen. `several`: whether there may be several texts; `errors`: what the studio found wrong, by name.
 * @param {{desk: any, model: any, several?: boolean, errors?: Record<string, string>}} shown
 */
export function Sampling({ desk, model, several, errors = {} }) {
  const { sampling, sample } = desk;
  /** @param {typeof FIELDS[number]} field */
  const number = ([name, label, min, max, step, help]) => html`<${Counted} key=${name} name=${name} label=${label} min=${min} max=${max} step=${step} help=${help}
    value=${sampling[name]} error=${errors[name]} set=${(value) => sample({ [name]: value })} />`;
  const others = Object.keys(DEFAULTS).filter((name) => name !== "max_tokens" && (several || !["samples", "times"].includes(name)) && sampling[name] !== DEFAULTS[name]);
  const bytes = model?.weight_bytes ?? {};
  return html`<details class="sampling" open=${[...FIELDS.map(([name]) => name), "samples", "sweep", "precision"].some((name) => errors[name]) || undefined}>
    <summary>Sampling${others.length > 0 && html` <span class="details">${others.map((name) => `${SAID[name] ?? name.replaceAll("_", " ")} ${sampling[name]}`).join(" · ")}</span>`}</summary>
    <div class="filters">
      ${FIELDS.map(number)}
      ${several && number(["samples", "Samples", 1, 64, 1, "pairs of texts, each with a seed of its own"])}
      ${several && html`<label>Strengths × <input type="text" placeholder="1" title="a steered text for each of these, by which all strengths are multiplied: 0.5, 1, 2" autocomplete="off"
        aria-invalid=${errors.sweep ? "true" : undefined} value=${sampling.times} onInput=${({ target }) => sample({ times: target.value })} />
        ${errors.sweep && html`<span class="refusal" role="alert">${errors.sweep}</span>`}</label>`}
      <label>Precision <select value=${sampling.precision} onChange=${({ target }) => sample({ precision: target.value })}>
        ${["", ...PRECISIONS].map((one) => html`<option value=${one} key=${one} selected=${one === sampling.precision}>${one ? `${one}${bytes[one] ? `, weights ${size(bytes[one])}` : ""}` : "as the SAE was trained"}</option>`)}</select>
        ${errors.precision && html`<span class="refusal" role="alert">${errors.precision}</span>`}</label>
    </div>
    ${several && html`<p class="help">Several samples stand below each other; several strengths (0.5, 1, 2) beside each other.</p>`}
  </details>`;
}

export function Tokens({ desk, error }) {
  return html`<div class="tokens-to-write"><${Counted} name="max_tokens" label="Tokens to write" min=${1} max=${4096} step=${1} value=${desk.sampling.max_tokens} error=${error} set=${(value) => desk.sample({ max_tokens: value })} /></div>`;
}

function Counted({ name, label, min, max, step, help, value, error, set }) {
  return html`<label>${label} <input type="number" name=${name} min=${min} max=${max} step=${step === 1 ? 1 : "any"} title=${help} aria-invalid=${error ? "true" : undefined}
    value=${value} onInput=${({ target }) => set(target.value === "" ? "" : Number(target.value))} />
    ${error && html`<span class="refusal" role="alert">${error}</span>`}</label>`;
}
