import { useState } from "preact/hooks";
import { ApiError, post } from "../api.js";
import { about, ago, amount, between, count, elapsed, number, share } from "../lib/format.js";
import { details, done, isBad, isTraining, outcome, reason, stage, title, verbs, wait } from "../lib/jobs.js";
import { mean, measured } from "../lib/measures.js";
import { rate } from "../lib/pace.js";
import { place } from "../lib/route.js";
import { clock, jobs, metrics, paces, phase, refusals, refuse, slowClock } from "../state.js";
import { Bar } from "./bar.js";
import { html } from "./html.js";
import { Mark } from "./mark.js";

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
      html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>`}
    <${Verbs} job=${job} key=${job.state} />
    <${Refusal} job=${job} />
  </article>`;
}

const joined = (parts) => parts.filter(Boolean).join(" · ");

const meanOf = (job, name) => mean(metrics.value.get(job.id), name);

/** How good what is trained has become; of several SAEs the mean. */
function quality(job) {
  const saes = measured(metrics.value.get(job.id));
  const of = saes > 1 ? `, mean of ${count(saes)}` : "";
  return [[`FVU${of}`, number(meanOf(job, "fvu"))], [`L0${of}`, number(meanOf(job, "l0"), 1)]];
}

/** Units a second: the trainer's own figure, else as seen from here. */
function speed(job) {
  const trained = isTraining(job) ? meanOf(job, "tokens_per_s") : null;
  const perSecond = trained ?? rate(paces.value.get(job.id));
  return perSecond && job.progress?.unit ? `${amount(perSecond, job.progress.unit)}/s` : "";
}

function left(job) {
  const eta_s = job.progress?.eta_s;
  return job.state === "running" && eta_s ? `${about(eta_s)} left` : "";
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

/** A job that has ended: how, and why. */
export function EndedJob({ job }) {
  const why = reason(job);
  const last = job.error?.log;
  return html`<li class="row ${isBad(job) ? "bad" : ""}">
    <${Mark} state=${job.state} />
    <div class="what"><${Title} job=${job} /><${Details} job=${job} /></div>
    <p class="how"><span class="outcome">${outcome(job)}</span> <time datetime=${job.ended_at}>${ago(job.ended_at, slowClock.value)}</time></p>
    <${Verbs} job=${job} key=${job.state} />
    ${why && html`<p class="why">${why}</p>`}
    ${last && html`<details class="why"><summary>Last words of the worker</summary><pre tabindex="0">${last}</pre></details>`}
    <${Refusal} job=${job} />
  </li>`;
}

function Title({ job, level = "p" }) {
  const [verb, name] = title(job);
  return html`<${level} class="title" id=${`job-${job.id}`}><span class="verb">${verb}</span> ${
    job.kind === "train" ? html`<a href=${place("training", [job.id])}>${name}</a>` : name}</${level}>`;
}

function Details({ job }) {
  const parts = [`job ${count(job.id)}`, ...details(job)].filter(Boolean);
  return html`<p class="details">${parts.map((part) => html`<span>${part}</span>`)}</p>`;
}

/** What can be done about it. The page changes when the studio says that the job has, not when a button is pressed. */
function Verbs({ job }) {
  const [asked, setAsked] = useState("");
  const ask = async (verb) => {
    setAsked(verb);
    try {
      await post(`/api/jobs/${job.id}/${verb}`);
    } catch (error) {
      setAsked("");
      refuse(job.id, error instanceof ApiError ? error.message : "the studio does not answer; try again when it is back");
    }
  };
  const off = phase.value !== "live" || asked !== "";
  return html`<div class="verbs">${verbs(job).map((verb) => html`
    <button key=${verb} disabled=${off} aria-label=${`${word(verb)} job ${job.id}`} onClick=${() => ask(verb)}>
      ${word(verb)}
    </button>`)}</div>`;
}

const word = (verb) => verb[0].toUpperCase() + verb.slice(1);

function Refusal({ job }) {
  const message = refusals.value.get(job.id);
  return message && html`<p class="why refusal" role="alert">${message}</p>`;
}
