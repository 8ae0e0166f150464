import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { post, said } from "../api.js";
import { about, count, share } from "../lib/format.js";
import { done, isBad, isEnded, reason, stage } from "../lib/jobs.js";
import { keep, kept } from "../kept.js";
import { show } from "../route.js";
import { jobs, phase } from "../state.js";
import { Bar } from "../ui/bar.js";
import { html } from "../ui/html.js";
import { OpenLog } from "../ui/log.js";

const WORDS = { label: "Labels features", score: "Scores labels", extract: "Extracts features" };
const MOST_ASIDE = 50;
const aside = signal(new Set(kept("aside")?.split(","))); // ids of jobs that ended badly and were put aside

function putAside(job) {
  aside.value = new Set([...aside.value].slice(-MOST_ASIDE)).add(String(job.id));
  keep("aside", [...aside.value].join(","));
}

/** Id of the newest extraction of an SAE that is done: with it the list is another one. */
export const extracted = (all, sae) => Math.max(0, ...[...all.values()].filter((job) => job.kind === "extract" && job.spec?.sae === sae && job.state === "done").map((job) => job.id));

/** What is at work on the features of an SAE, and what went wrong last, until that is put aside. */
export function FeatureJobs({ sae }) {
  const own = [...jobs.value.values()].filter((job) => WORDS[job.kind] && job.spec?.sae === sae.name).sort((a, b) => b.id - a.id);
  const atWork = own.filter((job) => !isEnded(job)).reverse();
  const newest = Object.keys(WORDS).map((kind) => own.find((job) => job.kind === kind)).filter((job) => job && isBad(job) && !aside.value.has(String(job.id)));
  if (!atWork.length && !newest.length) return null;
  return html`<section class="feature-jobs" aria-label="At work on these features">
    ${atWork.map((job) => html`<${AtWork} job=${job} key=${job.id} />`)}
    ${newest.map((job) => html`<${WentWrong} job=${job} key=${job.id} />`)}</section>`;
}

function AtWork({ job }) {
  const [failed, ask] = useVerb(job);
  const [, far] = stage(job);
  const live = job.state === "running";
  const parts = [live ? far || "starting" : job.state, done(job) !== null && share(done(job)), live && job.progress?.eta_s && `${about(job.progress.eta_s)} left`];
  return html`<div class="job-line"><p><b>${WORDS[job.kind]}</b> <span class="details">${[`job ${job.id}`, ...parts].filter(Boolean).join(" · ")}</span></p>
    ${live && html`<${Bar} share=${done(job)} label=${WORDS[job.kind]} />`}
    <button aria-label=${`Stop job ${job.id}`} disabled=${phase.value !== "live"} onClick=${() => ask("stop")}>Stop</button>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}</div>`;
}

function WentWrong({ job }) {
  const [failed, ask] = useVerb(job);
  const { failed: left, reasons } = job.result ?? {};
  const named = Object.entries(reasons ?? {}).slice(0, 4);
  return html`<div class="job-line went-wrong"><p><b class="refusal">${WORDS[job.kind]}: ${job.state === "partial" ? "only partly done" : "failed"}</b> <span class="details">job ${job.id}</span></p>
    <p class="why">${reason(job)}</p>
    ${named.length > 0 && html`<ul class="plainlist details">${named.map(([why, n]) => html`<li key=${why}>${count(n)}: ${why}</li>`)}</ul>`}
    ${job.error?.log && html`<details><summary>Last words of the worker</summary><pre tabindex="0">${job.error.log}</pre></details>`}
    <p class="verbs">
      <button disabled=${phase.value !== "live"} onClick=${() => ask("retry")}>Try ${job.state === "partial" ? "these" : "it"} again</button>
      ${job.kind === "label" && left > 0 && html`<button onClick=${() => show({ filter: "failed", q: "", at: "" })}>Show the failed ones</button>`}
      <${OpenLog} job=${job} />
      <button class="quiet" onClick=${() => putAside(job)}>Put aside</button></p>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}</div>`;
}

/** Ask something of a job: why that was refused, and how to ask. */
function useVerb(job) {
  const [failed, setFailed] = useState(null);
  return [failed, (verb) => post(`/api/jobs/${job.id}/${verb}`).then(() => setFailed(null), (error) => setFailed(said(error)))];
}
