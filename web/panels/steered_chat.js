import { useEffect, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { number } from "../lib/format.js";
import { compared } from "../lib/words.js";
import { Act } from "../ui/do.js";
import { html } from "../ui/html.js";
import { sent } from "./steered_desk.js";
import { Sampling, Tokens } from "./steered_sampling.js";
import { Refused, Stage, Stopped } from "./steered_session.js";
import { growing } from "./steered_texts.js";
import { wanting } from "./steered_write.js";
import { useWriting } from "./steered_writing.js";

/** A conversation: each turn is answered with and without steering, and goes on from the answer that was chosen. */
export function Chat({ desk, ranges, model, query, kept }) {
  const [turns, setTurns] = useState([]); // {said, id, result, from: steered or baseline}
  const [text, setText] = useState("");
  const [failed, setFailed] = useState(null);
  const told = (result, asked) => {
    const words = asked.messages.at(-1).content;
    setTurns((was) => [...was, { said: words, id: result.id, result, from: "steered" }]);
    setText((was) => (was === words ? "" : was));
    writing.clear();
    kept(result);
  };
  const writing = useWriting(told, ranges);
  const { run, write, stop } = writing;
  useEffect(() => {
    const ids = (query.turns ?? (query.view === undefined || query.run ? query.run : null) ?? "").split(",").filter(Boolean);
    if (ids.length) restored(ids).then(setTurns, (error) => setFailed(said(error)));
  }, []);
  useEffect(() => {
    const ids = turns.map(({ id }) => id).filter(Boolean);
    if (ids.length) desk.keep({ turns: ids.join(",") });
  }, [turns]);
  if (model?.chat_template === false) {
    return html`<div class="empty"><p>${model.name} has no chat template, so it was not made for chat.</p><button type="button" onClick=${() => desk.setView("text")}>Let it continue a text</button></div>`;
  }
  const messages = [...turns.flatMap((turn) => [{ role: "user", content: turn.said }, { role: "assistant", content: answer(turn) }]), { role: "user", content: text }];
  const body = { ...sent(desk), samples: 1, messages, steering: desk.steering };
  const begin = (event) => {
    event?.preventDefault();
    if (!desk.ready || !text.trim() || run.busy) return;
    desk.settle();
    write(body);
  };
  const keys = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && begin(event);
  const clear = () => {
    setTurns([]);
    desk.keep({ turns: null, run: null });
  };
  const back = () => {
    setText(turns.at(-1).said);
    setTurns(turns.slice(0, -1));
    if (turns.length === 1) desk.keep({ turns: null, run: null });
  };
  const choose = (at, from) => setTurns(turns.map((turn, n) => (n === at ? { ...turn, from } : turn)));
  const errors = run.fields ?? {};
  const growingTurn = (run.busy || run.texts.some(Boolean)) && growing(run)[0];
  return html`${failed && html`<p class="refusal" role="alert">${failed}.</p>`}
    ${turns.length > 0 && html`<ol class="turns" aria-label="Conversation">${turns.map((turn, at) => html`<${Turn} key=${at} turn=${turn} last=${at === turns.length - 1} choose=${(from) => choose(at, from)} />`)}</ol>`}
    ${growingTurn && html`<${Answers} said=${run.body.messages.at(-1).content} baseline=${growingTurn.baseline} steered=${growingTurn.steered[0]} busy=${run.busy} />`}
    <form class="steer" noValidate onSubmit=${begin}>
      <div class="field"><label for="message">Message</label><textarea id="message" rows="2" value=${text} placeholder="Say something" title="Enter sends, Shift+Enter makes a line"
        onInput=${({ target }) => setText(target.value)} onKeyDown=${keys}></textarea>${errors.messages && html`<p class="refusal" role="alert">${errors.messages}</p>`}</div>
      <div class="doing">
        <p class="verbs"><${Act} type="submit" class="first" disabled=${!desk.ready || !text.trim() || run.busy}>${run.failed ? "Send again" : "Send"}</${Act}>
          ${run.busy && html`<button type="button" onClick=${stop}>Stop</button>`}
          ${turns.length > 0 && !run.busy && html`<button type="button" onClick=${back}>Take back the last turn</button><button type="button" onClick=${clear}>Clear</button>`}
          <${Stage} run=${run} wanting=${wanting(desk, text).replace("the beginning of a text", "a message")} /></p>
        <${Tokens} desk=${desk} error=${errors.max_tokens} />
        <${Sampling} desk=${desk} model=${model} errors=${errors} />
      </div>
    </form>
    <${Stopped} run=${run} />
    ${!errors.messages && html`<${Refused} run=${run} body=${body} again=${write} model=${model} onDone=${(result) => told(result, body)} />`}`;
}

const answer = ({ past, result, from }) => past ?? (from === "baseline" ? result.baseline : result.steered[0]).text;

function Turn({ turn, last, choose }) {
  const { past, result, from } = turn;
  if (past !== undefined) return html`<li class="turn"><p class="said"><b>You</b> ${turn.said}</p><p class="card text">${past}</p></li>`;
  return html`<li><${Answers} said=${turn.said} baseline=${result.baseline} steered=${result.steered[0]} from=${from} choose=${last ? choose : null} /></li>`;
}

/** What was said, and both answers. `choose`: from which the conversation goes on. */
function Answers({ said: words, baseline, steered, from, choose, busy }) {
  const side = (of, one, title, text) => html`<article class="card" aria-label=${title} data-chosen=${from === of ? "" : undefined}><h3>${title}
      ${choose ? html`<label class="only"><input type="radio" name="goes-on" checked=${from === of} onChange=${() => choose(of)} /> goes on from this</label>`
        : from === of && html`<span class="details">went on from this</span>`}</h3>
    <p class="text">${text}</p>
    ${one.perplexity !== undefined && html`<p class="details">${one.kl !== undefined && html`<span>KL ${number(one.kl, 2)} nats</span>`}<span>perplexity ${number(one.perplexity, 1)}</span></p>`}</article>`;
  return html`<div class="turn" aria-busy=${busy ?? false}><p class="said"><b>You</b> ${words}</p><div class="beside" style=${{ "--columns": 2 }}>
    ${side("baseline", baseline, "Baseline", baseline.text)}
    ${side("steered", steered, "Steered", compared(steered.text, baseline.text).map(({ text, changed }, at) => (changed ? html`<mark key=${at}>${text}</mark>` : text)))}</div></div>`;
}

/** The turns of kept runs, in their order; what a conversation went on from, the run after it says. */
async function restored(ids) {
  const runs = (await Promise.all(ids.map((id) => get(`/api/steerings/${encodeURIComponent(id)}`)))).filter(({ spec }) => spec.messages);
  const before = runs[0]?.spec.messages.slice(0, -1) ?? []; // of which only the answers that it went on from are known here
  const past = before.filter(({ role }) => role === "user").map(({ content }, at) => ({ said: content, past: before.filter(({ role }) => role === "assistant")[at]?.content ?? "" }));
  return [...past, ...runs.map(({ id, spec, result }, at) => {
    const after = runs[at + 1]?.spec.messages.at(-2)?.content;
    return { id, result, said: spec.messages.at(-1).content, from: after !== undefined && after === result.baseline.text ? "baseline" : "steered" };
  })];
}
