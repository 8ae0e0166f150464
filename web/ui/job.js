import { ago, between, count, elapsed, joined, number, share } from "../lib/format.js";
import { details, done, isBad, lastLine, outcome, reason, stage, title, wait } from "../lib/jobs.js";
import { madeBy } from "../lib/made.js";
import { measured } from "../lib/measures.js";
import { place } from "../lib/route.js";
import { artifacts, clock, jobs, metrics, slowClock } from "../state.js";
import { Bar } from "./bar.js";
import { left, meanOf, speed } from "./going.js";
import { html } from "./html.js";
import { OpenLog } from "./log.js";
import { Mark } from "./mark.js";
import { Term } from "./term.js";
import { Refusal, Verbs } from "./verbs.js";

/** A job at work: all that is known of it, as it goes. */
export function LiveJob({ job }) {
  const [name, how] = stage(job);
  const part = done(job);
  const figures = job.kind === "train" && quality(job);
  return html`<article class="working" aria-labelledby=${`job-${job.id}`}>
    <div class="what"><${Title} job=${job} level="h4" /><${Details} job=${job} /></div>
    <${Bar} share=${part} label=${`Progress of job ${job.id}`} />
    <p class="way">
      <span><b>${job.state === "running" ? name : `${job.state}…`}</b> ${joined([how, speed(job)])}</span>
      <span>${joined([part === null ? "" : share(part), left(job), soFar(job)])}</span>
    </p>
    ${figures && html`<dl class="facts">${figures.map(([term, value]) =>
      html`<div key=${term}><dt><${Term} of=${term} /></dt><dd>${value}</dd></div>`)}</dl>`}
    <${Verbs} job=${job} key=${job.state} />
    <${Refusal} job=${job} />
  </article>`;
}

/** How good what is trained has become; of several SAEs the mean. */
function quality(job) {
  const saes = measured(metrics.value.get(job.id));
  const of = saes > 1 ? `, mean of ${count(saes)}` : "";
  return [[`FVU${of}`, number(meanOf(job, "fvu"))], [`L0${of}`, number(meanOf(job, "l0"), 1)]];
}

function soFar(job) {
  const seconds = between(job.started_at, new Date(clock.value).toISOString());
  return seconds === null || seconds < 1 ? "" : `${elapsed(seconds)} so far`;
}

/** A job that has not begun, or is paused. */
export function WaitingJob({ job }) {
  const why = reason(job);
  return html`<li class="row">
    <${Mark} state=${job.state} />
    <div class="what"><${Title} job=${job} /><${Details} job=${job} /></div>
    <p class="how">${wait(job, jobs.value)}</p>
    <${Verbs} job=${job} key=${job.state} />
    ${why && html`<p class="why">${why}</p>`}
    <${Refusal} job=${job} />
  </li>`;
}

/** A job that has ended: how, and why; of one that went wrong its worker's last line and its log. */
export function EndedJob({ job }) {
  const [why, last] = [reason(job), lastLine(job)];
  return html`<li class="row ${isBad(job) ? "bad" : ""}">
    <${Mark} state=${job.state} />
    <div class="what"><${Title} job=${job} /><${Details} job=${job} /></div>
    <p class="how"><span class="outcome">${outcome(job)}</span> <time datetime=${job.ended_at}>${ago(job.ended_at, slowClock.value)}</time></p>
    <${Verbs} job=${job} key=${job.state}>${isBad(job) && html`<${OpenLog} job=${job} />`}</${Verbs}>
    ${why && html`<p class="why">${why}</p>`}
    ${last && html`<p class="why last">Its worker's last line: <code>${last}</code></p>`}
    <${Refusal} job=${job} />
  </li>`;
}

/** What it is; where that is told in full is a link to it. */
function Title({ job, level = "p" }) {
  const [verb, name] = title(job);
  const at = place(job.kind === "train" ? "training" : "jobs", [job.id]);
  return html`<${level} class="title" id=${`job-${job.id}`}><span class="verb">${verb}</span> <a href=${at}>${name}</a></${level}>`;
}

/** What tells it from others, and links to what it has made as far as that is there still. */
function Details({ job }) {
  const made = madeBy(job).filter(({ noun, name }) => !noun || artifacts[noun].value.has(name));
  const links = made.map(({ words, at }) => html`<a href=${place(...at)}>${words}</a>`);
  const parts = [`job ${count(job.id)}`, ...details(job), ...links].filter(Boolean);
  return html`<p class="details">${parts.map((part) => html`<span>${part}</span>`)}</p>`;
}
