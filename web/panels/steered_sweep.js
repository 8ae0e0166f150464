import { useEffect, useState } from "preact/hooks";
import { ladder } from "../lib/bands.js";
import { deed, keyOf, saidEdits } from "../lib/edits.js";
import { number, share } from "../lib/format.js";
import { compared } from "../lib/words.js";
import { Chart } from "../ui/chart.js";
import { Act } from "../ui/do.js";
import { html } from "../ui/html.js";
import { numbers, sent } from "./steered_desk.js";
import { Sampling, Tokens } from "./steered_sampling.js";
import { Refused, Stage, Stopped } from "./steered_session.js";
import { growing } from "./steered_texts.js";
import { wanting } from "./steered_write.js";
import { useWriting } from "./steered_writing.js";

const TOGETHER = "all";
const FACTORS = [-2, -1, -0.5, 0, 0.5, 1, 2];

/** The same prompt at many strengths: of one feature alone, or of all together. */
export function Sweep({ desk, ranges, model, kept }) {
  const { sae, edits, prompt } = desk;
  const able = edits.filter(({ off, op }) => !off && op !== "ablate");
  const [chosen, setChosen] = useState(null);
  const [typed, setTyped] = useState(null);
  const writing = useWriting(kept, ranges);
  const { run, write, stop } = writing;
  const opened = desk.opened.run;
  useEffect(() => {
    if (!opened?.spec.sweep || !opened.spec.prompt) return;
    writing.show(opened.result);
    setTyped(opened.spec.sweep.join(", "));
  }, [opened]);
  const one = able.find((edit) => keyOf(edit) === (chosen ?? (able.length === 1 ? keyOf(able[0]) : null)));
  const strengths = typed ?? (one ? ladder(one.op === "add" ? ranges.rangeOf(one) : null) : FACTORS).join(", ");
  const steering = one ? [{ sae: one.sae, feature: one.feature, op: one.op, strength: 1, scope: one.scope }] : desk.steering;
  const body = { ...sent(desk), samples: 1, prompt, steering, sweep: numbers(strengths) ?? [] };
  const ready = able.length > 0 && (one || desk.ready) && prompt && body.sweep.length > 0;
  const begin = (event) => {
    event.preventDefault();
    if (!ready || run.busy) return;
    if (!one) desk.settle();
    write(body);
  };
  const take = (some) => {
    desk.setEdits((was) => [
      ...was.map((edit) => ({ ...edit, ...some.find((other) => keyOf(other) === keyOf(edit)) })),
      ...some.filter((other) => !was.some((edit) => keyOf(edit) === keyOf(other))).map((other) => ({ ...other, off: false })),
    ]);
    desk.setView("text");
  };
  const errors = run.fields ?? {};
  const choices = [...(able.length > 1 ? [[TOGETHER, "all features together"]] : []), ...able.map((edit) => [keyOf(edit), `feature ${edit.sae === sae.name ? "" : `${edit.sae}/`}${edit.feature} alone`])];
  return html`<form class="steer" noValidate onSubmit=${begin}>
      <div class="field"><label for="sweep-prompt">Prompt</label><textarea id="sweep-prompt" rows="2" value=${prompt} onInput=${({ target }) => desk.setPrompt(target.value)}></textarea></div>
      <div class="filters">
        <label>Sweep <select value=${one ? keyOf(one) : TOGETHER} onChange=${({ target }) => { setChosen(target.value); setTyped(null); }}>
          ${choices.map(([of, words]) => html`<option value=${of} key=${of} selected=${of === (one ? keyOf(one) : TOGETHER)}>${words}</option>`)}</select></label>
        <label class="wide-field">${one ? "Strengths" : "Strengths, times those of the sliders"} <input type="text" autocomplete="off" value=${strengths} aria-invalid=${errors.sweep ? "true" : undefined}
          onInput=${({ target }) => setTyped(target.value)} />${errors.sweep && html`<span class="refusal" role="alert">${errors.sweep}</span>`}</label>
      </div>
      <div class="doing"><p class="verbs"><${Act} type="submit" class="first" disabled=${!ready || run.busy}>Write the sweep</${Act}>
        ${run.busy && html`<button type="button" onClick=${stop}>Stop</button>`}
        <${Stage} run=${run} wanting=${able.length || !edits.length ? wanting(desk) : "Ablating has no strength: choose another feature, or add this one."} /></p>
        <${Tokens} desk=${desk} error=${errors.max_tokens} />
        <${Sampling} desk=${desk} model=${model} errors=${errors} /></div>
    </form>
    <${Stopped} run=${run} />
    <${Refused} run=${run} body=${body} again=${write} model=${model} onDone=${(result) => { writing.show(result); kept(result); }} />
    ${(run.result || run.texts.some(Boolean)) && html`<${Swept} run=${run} sae=${sae} take=${take} />`}`;
}

/** Texts by strength, and how KL and perplexity go with it. */
function Swept({ run, sae, take }) {
  const [{ baseline, steered }] = run.result ? [{ baseline: run.result.baseline, steered: run.result.steered.filter(({ sample }) => sample === 0) }] : growing(run);
  const factors = run.result ? steered.map((_, at) => factorOf(run, steered, at)) : run.body.sweep;
  const order = factors.map((_, at) => at).sort((a, b) => factors[a] - factors[b]);
  const alone = run.result?.edits.length === 1;
  const words = (x) => (alone ? deed({ op: run.result.edits[0].op, strength: x }) : `× ${x}`);
  const rows = order.map((at) => ({ factor: factors[at], ...steered[at] }));
  return html`<section class="swept" aria-label="The sweep" aria-busy=${run.busy ?? false}>
    ${run.result && rows.length > 1 && html`<div class="charts">${[["KL by strength, nats", "kl", 2], ["Perplexity by strength", "perplexity", 1]].map(([title, of, digits]) =>
      html`<${Chart} key=${of} title=${title} steps=${rows.map(({ factor }) => factor)} lines=${[{ name: "", values: rows.map((row) => row[of]) }]} digits=${digits}
        xWords=${words} xTitle=${alone ? "Strength" : "Strengths"} />`)}</div>`}
    <div class="scrolled-wide"><table class="table sweep" aria-label="Texts by strength">
      <thead><tr><th scope="col">Strength</th><th scope="col" class="figure">KL</th><th scope="col" class="figure">Perplexity</th><th scope="col" class="figure">Repetition</th><th scope="col">Text</th><th scope="col"><span class="unseen">Take it</span></th></tr></thead>
      <tbody><tr><th scope="row">baseline</th><td class="figure"></td><td class="figure" data-title="Perplexity">${number(baseline.perplexity, 1)}</td><td class="figure" data-title="Repetition">${share(baseline.repetition)}</td><td class="words">${baseline.text}</td><td></td></tr>
        ${rows.map((row, at) => html`<tr key=${at}>
          <th scope="row" class="figure">${run.result ? words(row.factor) : row.factor}${!alone && row.strengths && html`<p class="details">${saidEdits(row.strengths, sae.name)}</p>`}</th>
          <td class="figure" data-title="KL">${number(row.kl, 2)}</td><td class="figure" data-title="Perplexity">${number(row.perplexity, 1)}</td><td class="figure" data-title="Repetition">${share(row.repetition)}</td>
          <td class="words">${compared(row.text, baseline.text).map(({ text, changed }, at) => (changed ? html`<mark key=${at}>${text}</mark>` : text))}</td>
          <td>${row.strengths && html`<button type="button" class="quiet" aria-label=${`Take strength ${row.factor}`} onClick=${() => take(row.strengths)}>Take</button>`}</td></tr>`)}</tbody>
    </table></div></section>`;
}

/** By what the strengths of a variant were multiplied; of one feature alone that is its strength. */
function factorOf(run, steered, at) {
  const { edits } = run.result;
  if (edits.length === 1) return steered[at].strengths[0].strength;
  if (run.body) return run.body.sweep[at];
  const whole = edits.findIndex(({ op, strength }) => op !== "ablate" && strength !== 0);
  return whole < 0 ? at : Number((steered[at].strengths[whole].strength / edits[whole].strength).toPrecision(6));
}
