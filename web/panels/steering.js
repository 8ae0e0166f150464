import { useEffect, useRef, useState } from "preact/hooks";
import { useLoaded } from "../ui/asked.js";
import { beginning } from "../lib/bands.js";
import { editsFrom, written } from "../lib/edits.js";
import { go, route } from "../route.js";
import { newest } from "../state.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Chat } from "./steered_chat.js";
import { Compared } from "./steered_compared.js";
import { useDesk } from "./steered_desk.js";
import { Chosen } from "./steered_features.js";
import { History } from "./steered_history.js";
import { Profiles } from "./steered_profiles.js";
import { useRanges } from "./steered_ranges.js";
import { Session } from "./steered_session.js";
import { Sweep } from "./steered_sweep.js";
import { Write } from "./steered_write.js";
import { useWriting } from "./steered_writing.js";

const VIEWS = [["text", "Text"], ["chat", "Chat"], ["sweep", "Sweep"]];

/** The model's text with features amplified or suppressed, beside the same text without. */
export function Steering({ open, query }) {
  const turn = useTurn();
  const saes = newest("sae");
  const sae = open[0] ? saes.find((one) => one.name === open[0]) : saes[0];
  if (!sae) return html`<${Panel} title="Steering"><${Missing} name=${open[0]} others=${saes.length > 0} /></${Panel}>`;
  if (query.compare) return html`<${Compared} sae=${sae} ids=${query.compare.split(",")} query=${query} key=${query.compare} />`;
  return html`<${Desk} saes=${saes} sae=${sae} query=${query} key=${`${sae.name} ${turn}`} />`;
}

/** How often somebody has come here by a link or the browser's back: then the address is read anew. */
function useTurn() {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const heard = () => setTurn((was) => was + 1);
    addEventListener("hashchange", heard);
    return () => removeEventListener("hashchange", heard);
  }, []);
  return turn;
}

function Missing({ name, others }) {
  if (name && others) return html`<div class="empty"><p>There is no SAE ${name} any more. <a href="#/steering">Steer with the newest one</a></p></div>`;
  return html`<${Empty} line="mistudio demo">Steering changes features of an SAE while its model writes, and needs an SAE; none is here yet.
    <a class="button first" href="#/training">Train one</a></${Empty}>`;
}

function Desk({ saes, sae, query }) {
  const desk = useDesk(sae, query);
  const { edits, view } = desk;
  const [turn, setTurn] = useState(0);
  const kept = (result) => {
    desk.keep({ run: result.id });
    setTurn((was) => was + 1);
  };
  const ranges = useRanges(edits);
  useEffect(() => {
    const chosen = ({ op, strength }) => op !== "add" || strength !== null;
    const begins = (one) => (chosen(one) || !ranges.rangeOf(one) ? one : { ...one, strength: beginning(ranges.rangeOf(one)) });
    if (edits.some((one) => begins(one) !== one)) desk.setEdits((was) => was.map(begins));
  }, [edits, ranges.known]);
  const writing = useWriting(kept, ranges);
  const modelName = sae.model?.name;
  const { found: model } = useLoaded(modelName ? `/api/models/${encodeURIComponent(modelName)}` : null);
  const { run } = desk.opened;
  useEffect(() => {
    if (run && run.spec.prompt) writing.show(run.result);
  }, [run]);
  const siblings = saes.filter((one) => one.name === sae.name || (modelName && one.model?.name === modelName));
  const choose = ({ target }) => {
    const other = saes.find((one) => one.name === target.value);
    const same = modelName && other.model?.name === modelName;
    const { query: here } = route.peek();
    go("steering", [other.name], { ...here, run: null, turns: null, prompt: desk.prompt, features: same ? written(edits, other.name) : null });
  };
  const seen = useSeen(view);
  return html`<${Panel} title="Steering" verbs=${html`<div class="filters"><label>SAE <select value=${sae.name} onChange=${choose}>
      ${saes.map((one) => html`<option key=${one.name} value=${one.name} selected=${one.name === sae.name}>${one.name}</option>`)}</select></label></div>`}>
    <div class="desk-head"><div class="views" role="group" aria-label="View">${VIEWS.map(([of, words]) => html`<button type="button" key=${of}
      aria-pressed=${of === view} onClick=${() => desk.setView(of)}>${words}</button>`)}</div>
      <${Session} /></div>
    ${desk.opened.failed && html`<p class="refusal" role="alert">Run ${query.run}: ${desk.opened.failed}.</p>`}
    <${Chosen} desk=${desk} ranges=${ranges} saes=${siblings} />
    <div class="view" hidden=${view !== "text"}><${Write} desk=${desk} writing=${writing} ranges=${ranges} model=${model} kept=${kept} /></div>
    ${seen.has("chat") && html`<div class="view" hidden=${view !== "chat"}><${Chat} desk=${desk} ranges=${ranges} model=${model} query=${query} kept=${kept} /></div>`}
    ${seen.has("sweep") && html`<div class="view" hidden=${view !== "sweep"}><${Sweep} desk=${desk} ranges=${ranges} model=${model} kept=${kept} /></div>`}
    <${Profiles} desk=${desk} model=${model} load=${(steering) => desk.setEdits(editsFrom(steering, sae.name))} />
    <${History} sae=${sae} turn=${turn} />
  </${Panel}>`;
}

/** The views that were shown: what stands in one stays while another is looked at. */
function useSeen(view) {
  const seen = useRef(new Set());
  return seen.current.add(view);
}
