import { useState } from "preact/hooks";
import { isLive } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { found, modelsOf, tagsOf } from "../lib/saes.js";
import { show } from "../route.js";
import { groups, newest } from "../state.js";
import { Arriving } from "../ui/arriving.js";
import { html } from "../ui/html.js";
import { LiveJob, WaitingJob } from "../ui/job.js";
import { Empty, Panel } from "../ui/panel.js";
import { AddSae } from "./sae_add.js";
import { CompareSaes } from "./sae_compare.js";
import { Rows } from "./sae_rows.js";
import { Trash } from "./sae_trash.js";

const KINDS = new Set(["certify", "evaluate", "compare", "export", "push", "upload"]);
const [LEAST, MOST] = [2, 8]; // that can be compared

/** The SAEs there are, the newest first: rows with their quality, and what is at work on them. */
export function SaeList({ query }) {
  const [adding, setAdding] = useState(false);
  const [comparing, setComparing] = useState(false);
  const [chosen, setChosen] = useState([]);
  const all = newest("sae");
  const rows = found(all, query);
  const picked = chosen.filter((name) => all.some((sae) => sae.name === name));
  const choose = (name, is) => setChosen(is ? [...picked, name] : picked.filter((other) => other !== name));
  const can = picked.length >= LEAST && picked.length <= MOST;
  const verbs = html`${all.length > 1 && html`<span class="details">${can ? `${picked.length} chosen` : `choose ${LEAST} to ${MOST} to compare`}</span>
      <button disabled=${!can} onClick=${() => setComparing(true)}>Compare</button>`}
    <button class="first" onClick=${() => setAdding(true)}>Add SAE</button>`;
  return html`<${Panel} title="SAEs" count=${all.length} verbs=${verbs}>
    <${Arriving} kind="add_sae" noun="sae" label="SAEs on their way" />
    <${AtWork} />
    ${all.length > 0 && html`<${Filters} saes=${all} query=${query} />`}
    ${rows.length > 0 && html`<${Rows} saes=${rows} chosen=${picked} choose=${all.length > 1 && choose} />`}
    ${all.length > 0 && !rows.length && html`<${NoneFound} query=${query} />`}
    ${!all.length && html`<${Empty} line="mistudio sae add OWNER/NAME" verb=${html`<button onClick=${() => setAdding(true)}>Add one that is published</button>`}>
      No SAE is here yet: <a href=${place("training", ["new"])}>train one</a> on a tokenization, or add one that somebody has published.</${Empty}>`}
    <${Trash} count=${all.length} />
    ${adding && html`<${AddSae} onClose=${() => setAdding(false)} />`}
    ${comparing && html`<${CompareSaes} saes=${picked} onClose=${() => setComparing(false)} />`}
  </${Panel}>`;
}

/** What makes an SAE, measures one or gives one away; what brings one in is told of by Arriving. */
function AtWork() {
  const unfinished = [...groups.value.live, ...groups.value.waiting].filter((job) => job.kind !== "add_sae" && (KINDS.has(job.kind) || job.makes?.noun === "sae"));
  if (!unfinished.length) return null;
  const waiting = unfinished.filter((job) => !isLive(job));
  return html`<section aria-label="At work on SAEs">
    ${unfinished.filter(isLive).map((job) => html`<${LiveJob} job=${job} key=${job.id} />`)}
    ${waiting.length > 0 && html`<ul class="rows waiting">${waiting.map((job) => html`<${WaitingJob} job=${job} key=${job.id} />`)}</ul>`}
  </section>`;
}

function Filters({ saes, query }) {
  const set = (name) => (event) => show({ [name]: event.target.value });
  const choice = (name, label, all, values) => values.length > 0 && html`<label>${label} <select onChange=${set(name)}>
    <option value="">${all}</option>${values.map((one) => html`<option key=${one} value=${one} selected=${one === query[name]}>${one}</option>`)}</select></label>`;
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <label class="wide">Find <input type="search" placeholder="a name, model, hook, tag or word of a note" value=${query.q ?? ""} onInput=${set("q")} /></label>
    ${choice("model", "Model", "all models", modelsOf(saes))}
    ${choice("tag", "Tag", "all tags", tagsOf(saes))}
  </form>`;
}

function NoneFound({ query }) {
  const asked = [query.q && `“${query.q}”`, query.model && `the model ${query.model}`, query.tag && `the tag ${query.tag}`].filter(Boolean);
  return html`<div class="empty"><p>No SAE has ${asked.join(" and ")}.
    <button class="quiet" onClick=${() => show({ q: null, model: null, tag: null })}>Clear</button></p></div>`;
}
