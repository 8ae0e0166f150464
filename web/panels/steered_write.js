import { flags } from "../lib/edits.js";
import { Command } from "../ui/command.js";
import { html } from "../ui/html.js";
import { numbers, sent } from "./steered_desk.js";
import { Sampling, Tokens } from "./steered_sampling.js";
import { Refused, Stage } from "./steered_session.js";
import { Texts } from "./steered_texts.js";

/** A prompt, and its text with and without steering. */
export function Write({ desk, writing, ranges, model, kept }) {
  const { sae, prompt, setPrompt, steering, ready, sampling } = desk;
  const { run, write, stop } = writing;
  const body = { ...sent(desk), prompt, steering, sweep: numbers(sampling.times) };
  const begin = (event) => {
    event?.preventDefault();
    if (ready && prompt && !run.busy) write(body);
  };
  const keys = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && begin(event);
  const errors = run.fields ?? {};
  return html`<form class="steer" noValidate onSubmit=${begin}>
      <div class="field"><label for="prompt">Prompt</label>
        <textarea id="prompt" rows="3" value=${prompt} placeholder="def read_lines(path):" title="Ctrl+Enter writes" aria-invalid=${errors.prompt ? "true" : undefined}
          onInput=${({ target }) => setPrompt(target.value)} onKeyDown=${keys}></textarea>
        ${errors.prompt && html`<p class="refusal" role="alert">${errors.prompt}</p>`}</div>
      <div class="doing">
        <p class="verbs"><button type="submit" class="first" disabled=${!ready || !prompt || run.busy}>${!run.busy && (run.failed || run.stopped) ? "Write again" : "Write"}</button>
          ${run.busy && html`<button type="button" onClick=${stop}>Stop</button>`}
          <${Stage} run=${run} wanting=${wanting(desk)} /></p>
        <${Tokens} desk=${desk} error=${errors.max_tokens} />
        <${Sampling} desk=${desk} model=${model} several errors=${errors} />
      </div>
    </form>
    <${Refused} run=${run} body=${body} again=${write} model=${model} onDone=${(result) => { writing.show(result); kept(result); }} />
    ${run.stopped && html`<p class="details" role="status">Stopped: what is here is not kept.</p>`}
    ${(run.result || run.texts.some(Boolean)) && html`<${Texts} run=${run} rangeOf=${ranges.rangeOf} sae=${sae.name} />`}
    ${!run.result && !run.busy && !run.failed && !run.texts.length && html`<div class="empty"><p>The model's text, and the same with the features changed, will stand here side by side.</p>
      <${Command} line=${`mistudio steer ${sae.name} "${prompt || "def read_lines(path):"}" ${flags(desk.edits, sae.name) || "-f 12:+2"}`} /></div>`}`;
}

/** What is missing before anything can be written. */
export function wanting({ edits, steering, prompt, ready }, text = prompt) {
  if (!edits.length) return "Choose a feature first.";
  if (!steering.length) return "All features are left out for now.";
  if (!ready) return "A strength is not chosen yet.";
  return text ? "" : "Write the beginning of a text.";
}
