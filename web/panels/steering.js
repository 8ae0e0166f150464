import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get } from "../api.js";
import { number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { compared } from "../lib/words.js";
import { go, show } from "../route.js";
import { newest } from "../state.js";
import { stream } from "../stream.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Chosen } from "./steered_features.js";

/** The model's text with features amplified or suppressed, beside the same text without. */
export function Steering({ open, query }) {
  const saes = newest("sae");
  const sae = open[0] ? saes.find((one) => one.name === open[0]) : saes[0];
  if (!sae) return html`<${Panel} title="Steering"><${Empty} line="mistudio demo">
    Steering needs an SAE, and none is here yet; the demo makes one:</${Empty}></${Panel}>`;
  return html`<${Desk} saes=${saes} sae=${sae} query=${query} key=${sae.name} />`;
}

/** "12:1.5,7:-2" of an address → [{feature: 12, strength: 1.5}, …]; a strength that is missing is chosen by the range. */
function editsOf(text = "") {
  return String(text).split(",").filter(Boolean).map((one) => {
    const [feature, strength] = one.split(":").map(Number);
    return { feature, strength: Number.isFinite(strength) ? strength : null };
  });
}

const written = (edits) => edits.map(({ feature, strength }) => (strength === null ? feature : `${feature}:${strength}`)).join(",");

function Desk({ saes, sae, query }) {
  const [edits, setEdits] = useState(() => editsOf(query.features));
  const [prompt, setPrompt] = useState(query.prompt ?? "");
  const [tokens, setTokens] = useState(60);
  const [run, setRun] = useState(null);
  const stopping = useRef(null);
  useEffect(() => () => stopping.current?.abort(), []);
  const change = (some) => {
    setEdits(some);
    show({ features: written(some) });
  };
  const ready = prompt && edits.length > 0 && edits.every(({ strength }) => strength !== null);
  const write = async (event, pause) => {
    event?.preventDefault();
    stopping.current = new AbortController();
    const texts = ["", ""];
    setRun({ busy: true, stage: "asking", texts: [...texts] });
    const hear = (name, data) => {
      if (name === "progress") return setRun((was) => ({ ...was, stage: data.stage }));
      if (name === "text") data.texts.forEach(({ row, text }) => (texts[row] += text));
      setRun((was) => ({ ...was, stage: "writing", texts: [...texts] }));
    };
    const steering = edits.map(({ feature, strength }) => ({ feature, strength }));
    const body = { sae: sae.name, prompt, steering, max_tokens: tokens, if_busy: pause ? "pause" : "refuse" };
    try {
      setRun({ result: await stream("/api/steer", body, hear, stopping.current.signal) });
    } catch (error) {
      if (error.name === "AbortError") setRun((was) => ({ texts: was.texts }));
      else setRun({ failed: said(error), busyJob: error instanceof ApiError && error.about.choices ? error.about : null });
    }
  };
  return html`<${Panel} title="Steering">
    <form class="steer" onSubmit=${write}>
      <div class="filters"><label>SAE <select onChange=${(event) => go("steering", [event.target.value])}>
        ${saes.map((one) => html`<option key=${one.name} selected=${one.name === sae.name}>${one.name}</option>`)}</select></label>
        <label>Tokens to write <input type="number" min="1" max="4096" value=${tokens} onInput=${(event) => setTokens(Number(event.target.value))} /></label></div>
      <${Chosen} sae=${sae} edits=${edits} change=${change} />
      <label class="field" for="prompt">Prompt</label>
      <textarea id="prompt" rows="3" required value=${prompt} placeholder="Once upon a time" onInput=${(event) => setPrompt(event.target.value)}></textarea>
      <p class="verbs">
        <button type="submit" class="first" disabled=${!ready || run?.busy}>Write</button>
        ${run?.busy && html`<button type="button" onClick=${() => stopping.current.abort()}>Stop</button>`}
        ${!ready && html`<span class="details">${!edits.length ? "Choose a feature first." : !prompt ? "Write the beginning of a text." : "Looking for useful strengths."}</span>`}
        ${run?.busy && html`<span class="details" role="status">${run.stage}…</span>`}
      </p>
    </form>
    ${run?.failed && html`<p class="refusal" role="alert">${run.failed}</p>`}
    ${run?.busyJob?.choices.includes("pause") && html`<p class="verbs"><button onClick=${() => write(null, true)}>Pause job ${run.busyJob.job.id} and steer</button></p>`}
    ${run && !run.failed && html`<${Beside} run=${run} />`}
    <${History} sae=${sae} newest=${run?.result?.id} />
  </${Panel}>`;
}

/** Left the text as it would have been, right the steered one, its other words marked. */
function Beside({ run }) {
  const { result } = run;
  const [left, right] = result ? [result.baseline.text, result.steered[0].text] : run.texts;
  return html`<section class="beside" aria-label="What was written" aria-busy=${run.busy ?? false}>
    <div class="card"><h3>Baseline</h3><p class="text">${left}</p></div>
    <div class="card"><h3>Steered</h3><p class="text">${compared(right, left).map(({ text, changed }, at) =>
      changed ? html`<mark key=${at}>${text}</mark>` : text)}</p></div>
    ${result && html`<${Measures} result=${result} />`}
  </section>`;
}

function Measures({ result }) {
  const [one] = result.steered;
  const facts = [
    ["KL", one.kl === null ? "—" : `${number(one.kl, 2)} nats a token`],
    ["Perplexity", `${number(one.perplexity, 1)} (baseline ${number(result.baseline.perplexity, 1)})`],
    ["Repetition", share(one.repetition)],
    ["Other tokens", share(one.changed)],
    ["‖change‖/‖h‖", number(one.change_ratio, 2)],
  ];
  return html`<div class="card wide"><dl class="facts">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    <${Strip} values=${one.kl_tokens ?? []} tokens=${one.tokens} />
    ${(one.no_effect ?? []).map((none) => html`<p class="refusal" key=${none.feature}>${none.message}</p>`)}</div>`;
}

/** How far each token is from what the model would have thought of it, in nats. */
function Strip({ values, tokens }) {
  const most = Math.max(...values.filter((value) => value !== null), 0.001);
  return html`<p class="kl"><span class="details">KL of each token</span> ${values.map((value, at) => html`<span key=${at} class="bar"
    style=${{ "--part": (value ?? 0) / most }} title=${`${tokens[at]}: ${number(value, 2)} nats`}></span>`)}</p>`;
}

/** What was steered before with this SAE. */
function History({ sae, newest: latest }) {
  const [runs, setRuns] = useState([]);
  useEffect(() => {
    get(`/api/steerings?limit=20&sae=${encodeURIComponent(sae.name)}`).then(({ steerings }) => setRuns(steerings), () => {});
  }, [sae.name, latest]);
  if (!runs.length) return null;
  return html`<section aria-labelledby="before"><h3 id="before">Before</h3><ul class="rows">${runs.map((run) => html`<li class="finding" key=${run.id}>
    <a href=${place("steering", [sae.name], { features: written(run.steering), prompt: run.prompt })}>${run.prompt}</a>
    <span class="details"> ${run.steering.map((edit) => `${edit.feature} at ${edit.strength}`).join(", ")}</span></li>`)}</ul></section>`;
}
