import { useComputed } from "@preact/signals";
import { useState } from "preact/hooks";
import { about, ago, count, number, share } from "../lib/format.js";
import { done, isBad, isEnded, isLive, isTraining, outcome, reason, stage, wait } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { STATES, rowsOf, saesOf, span } from "../lib/training_rows.js";
import { show } from "../route.js";
import { artifacts, jobs, metrics, slowClock } from "../state.js";
import { Bar } from "../ui/bar.js";
import { html } from "../ui/html.js";
import { Mark } from "../ui/mark.js";

const SORTS = [["newest", "the newest first"], ["fvu", "the lowest FVU first"], ["name", "by name"]];
const SHOWN = { all: "all", running: "not ended", done: "done", failed: "failed", stopped: "stopped" };
const COLUMNS = [["Compare", "check"], ["Name", "name"], ["Reads", "text"], ["Architecture", "text"], ["Width", "figure wraps"], ["k", "figure wraps"], ["FVU", "figure"], ["L0", "figure"], ["Dead", "figure"],
  ["Tokens/s", "figure"], ["State", "text"]];

/** Trainings as rows; several of them are chosen to be laid over each other. */
export function TrainingRows({ runs, query }) {
  const [chosen, setChosen] = useState([]);
  const turn = (id) => setChosen(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id]);
  const all = runs.map((job) => ({ job, saes: saesOf(job, metrics.peek().get(job.id)) }));
  const rows = rowsOf(all, query);
  const [first, ...others] = chosen.filter((id) => runs.some((job) => job.id === id)).sort((a, b) => b - a);
  const head = COLUMNS.map(([title, kind]) => html`<th role="columnheader" scope="col" class=${kind} key=${title}>${title === "Compare" ? html`<span class="unseen">${title}</span>` : title}</th>`);
  return html`<form class="filters" role="search" aria-label="Trainings that are shown" onSubmit=${(event) => event.preventDefault()}>
      <label>Find <input type="search" placeholder="name, text, hook" value=${query.find ?? ""} onInput=${({ target }) => show({ find: target.value })} /></label>
      <label>Show <select value=${query.state ?? "all"} onChange=${({ target }) => show({ state: target.value === "all" ? null : target.value })}>
        ${Object.keys(STATES).map((one) => html`<option key=${one} value=${one} selected=${one === (query.state ?? "all")}>${SHOWN[one]}</option>`)}</select></label>
      <label>Sort <select value=${query.sort ?? "newest"} onChange=${({ target }) => show({ sort: target.value === "newest" ? null : target.value })}>
        ${SORTS.map(([one, words]) => html`<option key=${one} value=${one} selected=${one === (query.sort ?? "newest")}>${words}</option>`)}</select></label>
      ${others.length
        ? html`<a class="button first" href=${place("training", [first], { with: others.join(",") })}>Compare ${count(others.length + 1)}</a>`
        : html`<span class="details">Choose two or more to compare them.</span>`}
    </form>
    ${rows.length
      ? html`<table role="table" class="table trainings" aria-label="Trainings"><thead role="rowgroup"><tr role="row">${head}</tr></thead>
        ${rows.map(({ job }) => html`<${Row} key=${job.id} id=${job.id} chosen=${chosen.includes(job.id)} turn=${turn} />`)}</table>`
      : html`<p class="empty">No training is like that. <button class="quiet" onClick=${() => show({ find: null, state: null })}>Show all</button></p>`}`;
}

/** One training, and when it makes several SAEs and is unfolded, each of them. */
function Row({ id, chosen, turn }) {
  const job = useComputed(() => jobs.value.get(id)).value;
  const measures = useComputed(() => metrics.value.get(id)).value;
  const [open, setOpen] = useState(false);
  if (!job) return null; // it is just being deleted
  const saes = saesOf(job, measures);
  const { name, tokenization, hook, architecture, width, k } = job.spec;
  const model = artifacts.tokenization.value.get(tokenization)?.model;
  const list = (value) => [value].flat().map((one) => (typeof one === "number" ? count(one) : one)).join(", ");
  const speed = span(saes, "tokens_per_s");
  const why = reason(job);
  const cells = [
    html`<label class="tick"><input type="checkbox" aria-label=${`Compare ${name}, job ${id}`} checked=${chosen} onChange=${() => turn(id)} /></label>`,
    html`<a href=${place("training", [id])}>${name}</a>${saes.length > 1 && html` <button class="quiet unfold" aria-expanded=${open} onClick=${() => setOpen(!open)}>${count(saes.length)} SAEs ${open ? "▾" : "▸"}</button>`}
      ${why && html`<span class=${`details why ${isBad(job) ? "bad" : ""}`}>${why}</span>`}`,
    html`${model ?? tokenization} <code>${list(hook)}</code>`,
    list(architecture), list(width), list(k),
    range(span(saes, "fvu"), (x) => number(x)), range(span(saes, "l0"), (x) => number(x, 1)), range(span(saes, "dead"), share),
    speed && (isEnded(job) || isTraining(job)) ? count(job.result?.tokens_per_s ?? speed[1]) : "—",
    html`<${State} job=${job} />`,
  ];
  return html`<tbody role="rowgroup"><${Cells} cells=${cells} />
    ${open && saes.map((one) => html`<${Cells} key=${one.sae} kind="of-grid" cells=${[
      "", artifacts.sae.value.has(one.sae) ? html`<a href=${place("saes", [one.sae])}>${one.sae}</a>` : one.sae,
      one.hook ? html`<code>${one.hook}</code>` : "", one.architecture ?? "", one.width ? count(one.width) : "", one.k ? count(one.k) : "",
      number(one.fvu), number(one.l0, 1), share(one.dead), "", one.failed ? html`<span class="refusal">failed: ${one.failed}</span>` : "",
    ]} />`)}</tbody>`;
}

const Cells = ({ cells, kind }) => html`<tr role="row" class=${kind}>${cells.map((cell, at) =>
  html`<td role="cell" key=${at} class=${COLUMNS[at][1]} data-title=${COLUMNS[at][0]}>${cell}</td>`)}</tr>`;

/** "0.100", or of several SAEs "0.100–0.300". */
function range(found, shown) {
  if (!found) return "—";
  const [least, most] = found.map(shown);
  return least === most ? least : `${least}–${most}`;
}

function State({ job }) {
  if (isEnded(job)) {
    const word = job.state === "done" ? "Done" : outcome(job).split(" after")[0];
    return html`<span class=${`state ${isBad(job) ? "bad" : ""}`}><${Mark} state=${job.state} /> <span class="outcome">${word}</span> <time class="details" datetime=${job.ended_at}>${ago(job.ended_at, slowClock.value)}</time></span>`;
  }
  if (!isLive(job)) return html`<span class="state"><${Mark} state=${job.state} /> ${wait(job, jobs.value)}</span>`;
  const eta_s = job.state === "running" && job.progress?.eta_s;
  const words = [job.state === "running" ? stage(job)[0] : job.state, done(job) !== null && share(done(job)), eta_s && `${about(eta_s)} left`];
  return html`<span class="going"><${Bar} share=${done(job)} label=${`Progress of training ${job.id}`} /> <span class="details">${words.filter(Boolean).join(" · ")}</span></span>`;
}
