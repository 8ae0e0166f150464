import { lineOf } from "../lib/edits.js";
import { Command } from "../ui/command.js";
import { Act } from "../ui/do.js";
import { html } from "../ui/html.js";
import { DEFAULTS, numbers, sent } from "./steered_desk.js";
import { Sampling, Tokens } from "./steered_sampling.js";
import { Refused, Stage, Stopped } from "./steered_session.js";
import { Texts } from "./steered_texts.js";

const EXAMPLE = "def read_lines(path):";
const SOME = { feature: 12, op: "add", strength: 2, scope: "all", off: false };
const IN_A_TERMINAL = { ...DEFAULTS, max_tokens: 100 };

/** What the line for the terminal has to say of sampling. */
const said = (sampling) => Object.fromEntries(Object.entries(sampling).filter(([name, value]) => value !== "" && value !== IN_A_TERMINAL[name])
  .map(([name, value]) => (name === "times" ? ["sweep", value.replaceAll(" ", "")] : [name, value])));

/** A prompt, and its text with and without steering. */
export function Write({ desk, writing, ranges, model, kept }) {
  const { sae, prompt, setPrompt, steering, ready, sampling } = desk;
  const { run, write, stop } = writing;
  const body = { ...sent(desk), prompt, steering, sweep: numbers(sampling.times) };
  const begin = (event) => {
    event?.preventDefault();
    if (!ready || !prompt || run.busy) return;
    desk.settle();
    write(body);
  };
  const keys = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && begin(event);
  const errors = run.fields ?? {};
  const line = lineOf(sae.name, prompt || EXAMPLE, desk.edits.length ? desk.edits : [{ ...SOME, sae: sae.name }], said(sampling));
  return html`<form class="steer" noValidate onSubmit=${begin}>
      <div class="field"><label for="prompt">Prompt</label>
        <textarea id="prompt" rows="3" value=${prompt} placeholder=${EXAMPLE} title="Ctrl+Enter writes" aria-invalid=${errors.prompt ? "true" : undefined}
          onInput=${({ target }) => setPrompt(target.value)} onKeyDown=${keys}></textarea>
        ${errors.prompt && html`<p class="refusal" role="alert">${errors.prompt}</p>`}</div>
      <div class="doing">
        <p class="verbs"><${Act} type="submit" class="first" disabled=${!ready || !prompt || run.busy}>${!run.busy && (run.failed || run.stopped) ? "Write again" : "Write"}</${Act}>
          ${run.busy && html`<button type="button" onClick=${stop}>Stop</button>`}
          <${Stage} run=${run} wanting=${wanting(desk)} /></p>
        <${Tokens} desk=${desk} error=${errors.max_tokens} />
        <${Sampling} desk=${desk} model=${model} several errors=${errors} />
      </div>
    </form>
    <${Refused} run=${run} body=${body} again=${write} model=${model} onDone=${(result) => { writing.show(result); kept(result); }} />
    <${Stopped} run=${run} />
    ${(run.result || run.texts.some(Boolean)) && html`<${Texts} run=${run} rangeOf=${ranges.rangeOf} sae=${sae.name} />`}
    ${!run.result && !run.busy && !run.failed && !run.texts.length && html`<div class="empty"><p>The model's text, and the same with the features changed, will stand here side by side.</p>
      ${line && html`<${Command} line=${line} />`}</div>`}`;
}

/** What is missing before anything can be written. */
export function wanting({ edits, steering, prompt }, text = prompt) {
  if (!edits.length) return "Choose a feature first.";
  if (!steering.length) return "All features are left out for now.";
  return text ? "" : "Write the beginning of a text.";
}
