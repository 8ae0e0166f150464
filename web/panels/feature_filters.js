import { useEffect, useRef, useState } from "preact/hooks";
import { flags, inWords, terms, valueOf, withFlags, withTerm, without } from "../lib/feature_filter.js";
import { count } from "../lib/format.js";
import { go, show } from "../route.js";
import { labelled } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";

const TYPED_MS = 200;
const REASONS = 5; // that are told
const SORTS = [
  ["-max", "strongest first"],
  ["-typical", "strong again and again first"],
  ["-density", "most frequent first"],
  ["density", "rarest first"],
  ["label", "by label"],
  ["-score", "best labels first"],
  ["score", "worst labels first"],
  ["token", "by token"],
  ["index", "by number"],
];
const FLAGS = [
  ["", "all"],
  ["alive", "alive"],
  ["labelled", "labelled"],
  ["alive unlabelled", "alive, without a label"],
  ["failed", "whose label failed"],
  ["starred", "starred"],
  ["dead", "dead"],
];
const RANGES = [
  ["density", "Fires on", "%", 100],
  ["max", "Maximum", "", 1],
  ["score", "Score", "", 1],
];

/** What is shown of a list, and in which order; all of it stands in the address. */
export function Filters({ saes, sae, query, total }) {
  const has = total !== null;
  const { filter = "", sort = "-max", q = "" } = query;
  const set = (changed) => show({ at: "", ...changed });
  const shown = flags(filter);
  const sorts = SORTS.some(([of]) => of === sort) ? SORTS : [...SORTS, [sort, sort]];
  const known = FLAGS.some(([of]) => of === shown) ? FLAGS : [...FLAGS, [shown, shown]];
  return html`<div class="filtered">
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>SAE <select onChange=${(event) => go("features", [event.target.value])}>
        ${saes.map((one) => html`<option key=${one.name} selected=${one.name === sae.name}>${one.name}</option>`)}</select></label>
      ${has && html`
        <${Search} q=${q} filter=${filter} set=${set} />
        <${Choice} kind="seldom" label="Show" choices=${known} value=${shown} set=${(value) => set({ filter: withFlags(filter, value) })} />
        <${Choice} kind="seldom" label="Order" choices=${sorts} value=${sort} set=${(value) => set({ sort: value })} />
        <${OpenNumber} sae=${sae} query=${query} />`}
    </form>
    ${has && html`<${More} sae=${sae} filter=${filter} set=${set} />
      <${Chosen} filter=${filter} q=${q} set=${set} />
      <${Count} total=${total} of=${filter || q ? sae.width : total} />
      ${terms(filter).some((one) => one.name === "failed") && html`<${Reasons} sae=${sae} />`}`}
  </div>`;
}

const Count = ({ total, of }) => html`<p class="found" role="status">${total === of ? `${count(total)} features` : `${count(total)} of ${count(of)} features`}</p>`;

/** Words in labels and explanations, or in the tokens that a feature fires on most; asked for when the typing stops. */
function Search({ q, filter, set }) {
  const token = valueOf(filter, "token", ":");
  const [chosen, setChosen] = useState(token && !q ? "tokens" : "labels"); // for what is typed next
  const among = q ? "labels" : token ? "tokens" : chosen;
  const timer = useRef(0);
  const [text, setText] = useTyped(among === "labels" ? q : token);
  useEffect(() => () => clearTimeout(timer.current), []);
  const look = (text, where) =>
    set(where === "labels" ? { q: text, filter: withTerm(filter, "token", ":", "") } : { q: "", filter: withTerm(filter, "token", ":", text) });
  const typed = ({ target }) => {
    setText(target.value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => look(target.value, among), TYPED_MS);
  };
  const chose = ({ target }) => {
    setChosen(target.value);
    clearTimeout(timer.current);
    if (text) look(text, target.value);
  };
  return html`<span class="joined"><label>Search <input type="search" name="q" value=${text} placeholder=${
    among === "labels" ? "words of a label" : "part of a token"} onInput=${typed} /></label>
    <label><span class="unseen">Search in</span> <select onChange=${chose}>
      <option value="labels" selected=${among === "labels"}>in labels</option><option value="tokens" selected=${among === "tokens"}>in tokens</option></select></label></span>`;
}

/** What stands in a field: what is typed, until what it is about becomes another. */
function useTyped(value) {
  const [typed, setTyped] = useState({ value, text: value });
  const text = typed.value === value ? typed.text : value;
  return [text, (now) => setTyped({ value, text: now })];
}

function Choice({ label, choices, value, set, kind }) {
  return html`<label class=${kind}>${label} <select onChange=${(event) => set(event.target.value)}>
    ${choices.map(([of, words]) => html`<option value=${of} key=${of} selected=${of === value}>${words}</option>`)}</select></label>`;
}

/** Straight to a feature that somebody knows by its number. */
function OpenNumber({ sae, query }) {
  const opened = (event) => {
    if (event.key !== "Enter" || event.target.value === "") return;
    event.preventDefault();
    if (event.target.reportValidity()) go("features", [sae.name, Number(event.target.value)], { ...query, at: "" });
  };
  return html`<label class="seldom">Number <input type="number" name="number" min="0" max=${sae.width - 1} step="1" placeholder="0 to ${sae.width - 1}" onKeyDown=${opened} /></label>`;
}

/** Lists, who has said the label, and how often, how strongly and how well. */
function More({ sae, filter, set }) {
  const [open, setOpen] = useState(false);
  const { found } = useLoaded(open ? `/api/saes/${sae.id}/lists` : null);
  const { found: labels } = useLoaded(open ? `/api/saes/${sae.id}/labels/summary` : null);
  const providers = [...new Set((labels?.providers ?? []).map((one) => one.provider))];
  const by = (name, words, values) => values.length > 0 && html`<${Choice} label=${words} choices=${[["", "any"], ...values.map((one) => [one, one])]}
    value=${valueOf(filter, name, ":")} set=${(value) => set({ filter: withTerm(filter, name, ":", value) })} />`;
  return html`<details class="more" onToggle=${(event) => setOpen(event.target.open)}><summary>More filters</summary>
    ${open && html`<div class="filters">
      ${by("list", "List", (found?.lists ?? []).map((one) => one.name))}
      ${by("provider", "Labelled by", providers)}
      ${RANGES.map(([name, words, unit, scale]) => html`<fieldset key=${name}><legend>${words}</legend>
        ${[[">", "more than"], ["<", "less than"]].map(([sign, than]) => html`<label key=${sign}>${than} <${Bound} name=${name} sign=${sign} scale=${scale} filter=${filter} set=${set} /> ${unit}</label>`)}</fieldset>`)}
    </div>`}</details>`;
}

function Bound({ name, sign, scale, filter, set }) {
  const value = valueOf(filter, name, sign);
  const [text, setText] = useTyped(value === "" ? "" : String(Number((Number(value) * scale).toPrecision(12))));
  const changed = ({ target }) => {
    const typed = target.valueAsNumber;
    set({ filter: withTerm(filter, name, sign, Number.isFinite(typed) ? String(Number((typed / scale).toPrecision(12))) : "") });
  };
  return html`<input type="number" step="any" min="0" value=${text} onInput=${({ target }) => setText(target.value)} onChange=${changed} />`;
}

/** What narrows the list besides what stands in a field above: each can be taken away. */
function Chosen({ filter, q, set }) {
  const all = terms(filter);
  const searched = q ? null : all.find((one) => one.name === "token");
  const some = all.filter((one) => one !== searched && (one.sign !== "" || one.name === undefined));
  if (!some.length) return null;
  return html`<ul class="chosen" aria-label="Filters">${some.map((one) => html`<li key=${one.text}>${inWords(one)}
    <button class="quiet" aria-label=${`Without: ${inWords(one)}`} onClick=${() => set({ filter: without(filter, one.text) })}>✕</button></li>`)}</ul>`;
}

/** Why the last try at a label gave none, the most frequent reason first. */
function Reasons({ sae }) {
  const { found } = useLoaded(`/api/saes/${sae.id}/labels/summary`, labelled.value.get(sae.name));
  const some = (found?.failures ?? []).slice(0, REASONS);
  return some.length > 0 && html`<ul class="plainlist details reasons" aria-label="Why labels failed">${some.map(({ reason, features }) => html`<li key=${reason}>${count(features)}: ${reason}</li>`)}</ul>`;
}
