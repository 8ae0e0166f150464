import { useEffect, useRef, useState } from "preact/hooks";
import { get, submit } from "../api.js";
import { count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { PAGE, inSight, pagesOf } from "../lib/virtual.js";
import { go, show } from "../route.js";
import { newest } from "../state.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Tokens, around } from "../ui/tokens.js";
import { Feature } from "./feature.js";
import { LabelFeatures } from "./label.js";

const ROW_PX = 36;
const TYPED_MS = 200;
const SORTS = [
  ["-max", "strongest first"],
  ["-density", "most frequent first"],
  ["density", "rarest first"],
  ["label", "by label"],
  ["-score", "best labels first"],
  ["token", "by token"],
  ["index", "by number"],
];
const FILTERS = [
  ["", "all"],
  ["alive", "alive"],
  ["labelled", "labelled"],
  ["alive unlabelled", "without a label"],
  ["starred", "starred"],
  ["dead", "dead"],
];

/** The features of an SAE: all of them in a list, or one that is open. */
export function Features({ open, query }) {
  const saes = newest("sae");
  const [name, index] = open;
  const sae = name ? saes.find((one) => one.name === name) : saes[0];
  if (!sae) return html`<${Panel} title="Features"><${Empty} line="mistudio demo">
    Features are what an SAE has learned. ${name ? `There is no SAE ${name}.` : "None is here yet; the demo makes one:"}</${Empty}></${Panel}>`;
  if (index !== undefined) return html`<${Feature} sae=${sae} index=${Number(index)} query=${query} />`;
  return html`<${List} saes=${saes} sae=${sae} query=${query} key=${sae.name} />`;
}

function List({ saes, sae, query }) {
  const asked = { sort: query.sort ?? "-max", filter: query.filter ?? "", q: query.q ?? "" };
  const [found, setFound] = useState({ total: null, failed: null });
  const [labelling, setLabelling] = useState(false);
  const verbs = found.total !== null && html`<button onClick=${() => setLabelling(true)}>Label features</button>`;
  return html`<${Panel} title="Features" count=${found.total} verbs=${verbs}>
    ${labelling && html`<${LabelFeatures} sae=${sae} onClose=${() => setLabelling(false)} />`}
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>SAE <select onChange=${(event) => go("features", [event.target.value])}>
        ${saes.map((one) => html`<option key=${one.name} selected=${one.name === sae.name}>${one.name}</option>`)}</select></label>
      <${Search} q=${asked.q} />
      <${Choice} label="Show" name="filter" choices=${FILTERS} value=${asked.filter} />
      <${Choice} label="Order" name="sort" choices=${SORTS} value=${asked.sort} />
    </form>
    ${found.failed ? html`<${Missing} sae=${sae} why=${found.failed} canExtract=${found.isMissing} />` : html`<${Rows} sae=${sae} asked=${asked} found=${found} setFound=${setFound} />`}
  </${Panel}>`;
}

/** Words in labels and explanations; asked for when the typing stops. */
function Search({ q }) {
  const timer = useRef(0);
  const typed = ({ target }) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => show({ q: target.value }), TYPED_MS);
  };
  return html`<label>Search <input type="search" name="q" value=${q} placeholder="words of a label" onInput=${typed} /></label>`;
}

function Choice({ label, name, choices, value }) {
  return html`<label>${label} <select onChange=${(event) => show({ [name]: event.target.value })}>
    ${choices.map(([of, words]) => html`<option value=${of} key=${of} selected=${of === value}>${words}</option>`)}</select></label>`;
}

/** Why there is no list; where no features were extracted yet, the button that does that. */
function Missing({ sae, why, canExtract }) {
  const [asked, setAsked] = useState("");
  const extract = () => submit({ kind: "extract", sae: sae.name }).then(
    (job) => setAsked(`Job ${job.id} extracts them; they stand here when it is done.`), (error) => setAsked(said(error)));
  return html`<div class="empty"><p>${why}</p><p role="status">${asked}</p>
    ${canExtract && html`<button class="first" onClick=${extract}>Extract the features of ${sae.name}</button>`}</div>`;
}

/** A table of which only what is in sight is drawn and asked for. */
function Rows({ sae, asked, found, setFound }) {
  const box = useRef(null);
  const pages = useRef(new Map());
  const [sight, setSight] = useState({ first: 0, last: 0 });
  const [, drawn] = useState(0);
  const key = JSON.stringify([sae.name, asked]);
  const now = useRef(key);
  const look = (total) => setSight(inSight(box.current.scrollTop, box.current.clientHeight, ROW_PX, total));
  const fetch = async (page) => {
    if (pages.current.has(page)) return;
    pages.current.set(page, null);
    const wanted = new URLSearchParams({ ...asked, limit: PAGE, cursor: page * PAGE, example: true });
    if (!asked.q) wanted.delete("q");
    try {
      const answer = await get(`/api/saes/${sae.id}/features?${wanted}`);
      if (now.current !== key) return;
      pages.current.set(page, answer.features);
      if (answer.total !== found.total) setFound({ total: answer.total, failed: null });
      look(answer.total);
      drawn((n) => n + 1);
    } catch (error) {
      if (now.current === key) setFound({ total: null, failed: said(error), isMissing: [404, 409].includes(error.status) });
    }
  };
  useEffect(() => {
    now.current = key;
    pages.current = new Map();
    box.current.scrollTop = 0;
    fetch(0);
  }, [key]);
  useEffect(() => pagesOf(sight.first, sight.last).forEach(fetch), [sight.first, sight.last, key]);
  const total = found.total ?? 0;
  const rows = [];
  for (let at = sight.first; at < sight.last; at++) {
    rows.push(html`<${Row} key=${at} at=${at} sae=${sae} feature=${pages.current.get(Math.floor(at / PAGE))?.[at % PAGE]} query=${asked} />`);
  }
  return html`<div class="features" role="table" aria-label="Features" aria-rowcount=${total + 1}>
    <div role="row" class="feature head">${["Feature", "Label", "Score", "Fires on", "Max", "Strongest example"].map((title) =>
      html`<span role="columnheader" key=${title}>${title}</span>`)}</div>
    <div class="sight" role="rowgroup" ref=${box} onScroll=${() => look(total)} tabindex="0" aria-label="Features, to be scrolled">
      <div class="all" role="presentation" style=${{ height: `${total * ROW_PX}px` }}>${rows}</div>
    </div>
    ${found.total === 0 && html`<p class="empty">No feature is so. <button class="quiet" onClick=${() => show({ q: "", filter: "" })}>Show all</button></p>`}
  </div>`;
}

function Row({ at, sae, feature, query }) {
  const style = { transform: `translateY(${at * ROW_PX}px)` };
  if (!feature) return html`<div role="row" aria-rowindex=${at + 2} class="feature waits" style=${style}></div>`;
  const { index, label, score, density, max, dead, example, tokens, starred } = feature;
  const line = example && around(example);
  return html`<div role="row" aria-rowindex=${at + 2} class="feature" style=${style}>
    <span role="cell"><a href=${place("features", [sae.name, index], query)}>${index}</a>${starred && html` <span title="starred">★</span>`}</span>
    <span role="cell" class=${label ? "" : "faint"}>${label?.text ?? (dead ? "dead" : tokens.join(" "))}</span>
    <span role="cell" class="figure">${number(score, 2)}</span>
    <span role="cell" class="figure">${dead ? "—" : share(density)}</span>
    <span role="cell" class="figure">${dead ? "—" : number(max, 1)}</span>
    <span role="cell" class="example">${line && html`<${Tokens} texts=${line.texts} values=${line.values} most=${max} peak=${line.peak} />`}</span>
  </div>`;
}
