import { useMemo, useState } from "preact/hooks";
import { number, share } from "../lib/format.js";
import { saidEdits } from "../lib/edits.js";
import { inTokens, samples, warnings } from "../lib/steered.js";
import { compared } from "../lib/words.js";
import { html } from "../ui/html.js";
import { KlStrip } from "./steered_kl.js";

/** Left the text as it would have been, right the steered ones, their other words marked; a row for each sample. */
export function Texts({ run, rangeOf, sae }) {
  const rows = run.result ? samples(run.result) : growing(run);
  return html`<section class="written" aria-label="What was written" aria-busy=${run.busy ?? false}>
    ${run.result && html`<${Made} result=${run.result} />`}
    ${rows.map(({ baseline, steered }, at) => html`<div key=${at} role=${rows.length > 1 ? "group" : undefined} aria-label=${rows.length > 1 ? `Sample ${at + 1}` : undefined}>
      ${rows.length > 1 && html`<h3>Sample ${at + 1}</h3>`}
      <div class="beside" style=${{ "--columns": 1 + steered.length }}>
        <${Baseline} one=${baseline} other=${steered.length === 1 ? steered[0].text : null} />
        ${steered.map((one, n) => html`<${Steered} key=${n} one=${one} baseline=${baseline} rangeOf=${rangeOf} sae=${sae} several=${steered.length > 1} />`)}
      </div></div>`)}
  </section>`;
}

/** Texts that are still being written, or never came to their end, in the shape of whole ones. */
export function growing({ texts, variants }) {
  const rows = [];
  for (let at = 0; at < texts.length; at += 1 + variants) {
    rows.push({ baseline: { text: texts[at] }, steered: texts.slice(at + 1, at + 1 + variants).map((text) => ({ text })) });
  }
  return rows;
}

function Made({ result }) {
  const { model, precision, device, seed, seconds, tokens_per_s } = result;
  return html`<p class="details"><span>${model}, ${precision} on ${device}</span><span>seed ${seed}</span><span>${number(seconds, 1)} s</span><span>${number(tokens_per_s, 0)} tokens/s</span></p>`;
}

function Baseline({ one, other }) {
  return html`<article class="card" aria-label="Baseline"><h3>Baseline</h3>
    <p class="text words">${other === null ? one.text : compared(one.text, other).map(({ text, changed }, at) => (changed ? html`<del key=${at}>${text}</del>` : text))}</p>
    ${one.perplexity !== undefined && html`<dl class="facts"><div><dt>Perplexity</dt><dd>${number(one.perplexity, 1)}</dd></div>
      <div><dt>Repetition</dt><dd>${share(one.repetition)}</dd></div></dl>`}</article>`;
}

function Steered({ one, baseline, rangeOf, sae, several }) {
  const [at, setAt] = useState(null); // the token that is pointed at
  const done = one.strengths && saidEdits(one.strengths, sae);
  const pieces = useMemo(() => compared(one.text, baseline.text), [one.text, baseline.text]);
  return html`<article class="card" aria-label=${several && done ? `Steered, ${done}` : "Steered"}>
    <h3>Steered ${done && html`<span class="details">${done}</span>`}</h3>
    <p class="text words">${one.tokens?.join("") === one.text ? inTokens(one.tokens, pieces).map((parts, n) => html`<span key=${n} class=${n === at ? "pointed" : undefined}
      onMouseEnter=${() => setAt(n)} onMouseLeave=${() => setAt(null)}>${marked(parts)}</span>`) : marked(pieces)}</p>
    ${one.tokens && html`<${KlStrip} one=${one} at=${at} point=${setAt} /><${Measures} one=${one} baseline=${baseline} />
      ${warnings(one, baseline, rangeOf, sae).map((warning) => html`<p class="warning" key=${warning}>${warning}</p>`)}
      <${Fires} one=${one} baseline=${baseline} sae=${sae} />`}
  </article>`;
}

const marked = (pieces) => pieces.map(({ text, changed }, at) => (changed ? html`<mark key=${at}>${text}</mark>` : text));

function Measures({ one, baseline }) {
  const facts = [
    ["KL", one.kl === null ? "—" : `${number(one.kl, 2)} nats`, "Mean over its tokens of KL(steered ‖ unsteered)"],
    ["Perplexity", number(one.perplexity, 1), `Under the model without steering; the baseline has ${number(baseline.perplexity, 1)}`],
    ["Repetition", share(one.repetition), "Share of its 4-grams that were there before"],
    ["Other tokens", share(one.changed), "Share of its tokens that the baseline has not"],
    ["‖change‖/‖h‖", number(one.change_ratio, 2), "How large the change is, beside the activation that it is made to"],
  ];
  return html`<dl class="facts">${facts.map(([term, value, about]) => html`<div key=${term} title=${about}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** How strongly the features fire on what was written: before, as the model without steering reads it, and after the edit. */
function Fires({ one, baseline, sae }) {
  if (!one.steered_activations?.length) return null;
  const of = (list, { sae: name, feature }) => list.find((some) => some.sae === name && some.feature === feature);
  return html`<details><summary>How strongly the features fire</summary><div class="scrolled"><table class="fires">
    <thead><tr><th scope="col">Feature</th><th scope="col">in the baseline</th><th scope="col">in this text</th><th scope="col">after the edit</th></tr></thead>
    <tbody>${one.steered_activations.map((after) => html`<tr key=${`${after.sae}/${after.feature}`}><th scope="row">${after.sae === sae ? "" : `${after.sae}/`}${after.feature}</th>
      ${[of(baseline.activations, after), of(one.activations, after), after].map((some, n) => html`<td key=${n}>${number(some?.mean, 2)}, max ${number(some?.max, 2)}</td>`)}</tr>`)}</tbody>
  </table></div></details>`;
}
