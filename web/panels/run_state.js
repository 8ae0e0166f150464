import { useEffect, useRef, useState } from "preact/hooks";
import { post, remove, said } from "../api.js";
import { about, ago, amount, between, count, duration, elapsed, known, number, share, size } from "../lib/format.js";
import { done, isBad, isEnded, isLive, isTraining, outcome, reason, stage, wait } from "../lib/jobs.js";
import { mean, rate } from "../lib/measures.js";
import { go } from "../route.js";
import { clock, jobs, metrics, paces, phase, slowClock } from "../state.js";
import { Bar } from "../ui/bar.js";
import { Sure } from "../ui/dialog.js";
import { html } from "../ui/html.js";
import { OpenLog } from "../ui/log.js";
import { Mark } from "../ui/mark.js";
import { Term } from "../ui/term.js";

/** How a training stands, what it takes, and what can be done about it. */
export function RunState({ job: given, kept }) {
  const job = jobs.value.get(given.id) ?? given;
  const why = reason(job);
  const heading = useRef(null);
  const asked = useRef(false);
  useEffect(() => {
    // The button that was pressed has gone.
    if (asked.current && document.activeElement === document.body) heading.current.focus();
    asked.current = false;
  }, [job.state, job.finalize]);
  return html`<section class="card runstate" aria-label="How it stands">
    <h3 tabindex="-1" ref=${heading}><${Mark} state=${job.state} /> <${Words} job=${job} /></h3>
    ${isLive(job) && html`<${Bar} share=${done(job)} label=${`Progress of training ${job.id}`} />`}
    ${why && html`<p class="why ${isBad(job) ? "refusal" : ""}" role=${isBad(job) ? "alert" : undefined}>${why}</p>`}
    ${job.error?.log && html`<pre tabindex="0" aria-label="Last words of the worker">${job.error.log.trim()}</pre>`}
    <dl class="facts">${facts(job).map(([term, value, title]) => html`<div key=${term} title=${title}><dt><${Term} of=${term} /></dt><dd>${value}</dd></div>`)}</dl>
    <${Verbs} job=${job} kept=${kept} onAsk=${() => (asked.current = true)} key=${job.state} />
  </section>`;
}

function Words({ job }) {
  if (isEnded(job)) return html`<span class=${isBad(job) ? "refusal" : ""}>${job.state === "done" ? "Done" : outcome(job)}</span> <time class="details" datetime=${job.ended_at}>${ago(job.ended_at, slowClock.value)}</time>`;
  if (!isLive(job)) return html`<span>${wait(job, jobs.value)}</span>`;
  const [name, how] = stage(job);
  const eta_s = job.state === "running" && job.progress?.eta_s;
  const parts = [job.state === "running" ? name : `${job.state}…`, how, done(job) !== null && share(done(job)), eta_s && `${about(eta_s)} left`];
  return html`<span class="stage">${parts.filter(Boolean).join(" · ")}${job.finalize ? " · comes to its end now" : ""}</span>`;
}

/** In figures: how good it has become, as long as it goes on (then a table says it), how fast it is, what it takes. */
function facts(job) {
  const ended = isEnded(job);
  const now = (name) => mean(metrics.value.get(job.id), name);
  const of = (job.makes?.names.length ?? 1) > 1 ? ", mean" : "";
  const found = [[`FVU${of}`, number(now("fvu"))], [`L0${of}`, number(now("l0"), 1)], [`Dead${of}`, share(now("dead"))]];
  const seconds = between(job.started_at, job.ended_at ?? new Date(clock.value).toISOString());
  const speed = ended ? job.result?.tokens_per_s : isTraining(job) ? now("tokens_per_s") : null;
  const perSecond = speed ?? (isLive(job) ? rate(paces.value.get(job.id)) : null);
  return [
    ...(ended ? [] : found),
    ["Speed", perSecond ? `${amount(Math.round(perSecond), ended ? "tokens" : (job.progress?.unit ?? "tokens"))}/s` : "—"],
    ...(ended || isLive(job) ? [[ended ? "Took" : "So far", seconds === null ? "—" : ended ? duration(seconds) : elapsed(seconds)]] : []),
    ...memory(job, now("memory_bytes")),
    ...((job.attempts ?? 1) > 1 ? [["Attempts", count(job.attempts)]] : []),
  ];
}

/** What it was expected to take, and what it takes. */
function memory(job, now) {
  const measured = job.result?.peak_bytes ?? now;
  if (!job.plan && !known(measured)) return [];
  return [["Memory predicted", job.plan ? size(job.plan.peak_bytes) : "—", job.plan?.verdict], [isEnded(job) ? "Memory measured" : "Memory now", size(measured)]];
}

// What a training in its state can be asked: the API's verb, the word on the button, what it does.
const PAUSE = ["pause", "Pause", "Saves where it is and frees the memory; it goes on when you resume it."];
const RESUME = ["resume", "Resume", "Goes on exactly where it was."];
const FINALIZE = ["finalize", "End it now and keep the SAE", "Measured and saved as if it had come to its end."];
const STOP = ["stop", "Stop", "Ends at once; what it has learned so far is saved as an SAE that can be used."];
const GIVE_UP = ["stop", "Stop", "Ends here without an SAE; its checkpoint stays, to be tried again."]; // no worker is there that could save one
const CANCEL = ["stop", "Stop", "Takes it out of the queue."];

/** What can be asked of it; `kept`: its checkpoints, undefined before they are known. */
function choices(job, kept) {
  const goesOn = kept?.length ? `Goes on from its checkpoint at step ${count(kept[0].step)}.` : "Begins anew: there is no checkpoint to go on from.";
  const again = ["retry", "Try again", kept ? goesOn : "Goes on from its newest checkpoint, if it has one."];
  if (job.state === "running") return job.finalize ? [STOP] : [PAUSE, FINALIZE, STOP];
  if (job.state === "pausing") return [STOP];
  if (job.state === "stopping") return [];
  if (job.state === "paused") return [RESUME, ...(kept?.length ? [FINALIZE] : []), GIVE_UP];
  if (!isEnded(job)) return [CANCEL];
  return job.state === "done" ? [] : [again, ...(kept?.length && job.state !== "partial" ? [FINALIZE] : [])];
}

function Verbs({ job, kept, onAsk }) {
  const [asked, setAsked] = useState("");
  const [failed, setFailed] = useState("");
  const ask = (verb) => {
    onAsk();
    setAsked(verb);
    setFailed("");
    post(`/api/jobs/${job.id}/${verb}`).then(() => verb === "finalize" && setAsked(""), (error) => {
      setAsked("");
      setFailed(said(error));
    });
  };
  const off = phase.value !== "live" || asked !== "";
  return html`<ul class="choices">${choices(job, kept).map(([verb, words, does]) => html`<li key=${verb}>
      <button disabled=${off} aria-describedby=${`does-${verb}`} onClick=${() => ask(verb)}>${words}</button> <span class="help" id=${`does-${verb}`}>${does}</span></li>`)}
      ${isEnded(job) && html`<${Forget} job=${job} />`}
      ${isBad(job) && html`<li><${OpenLog} job=${job} /> <span class="help">What the worker wrote, to its end.</span></li>`}
    </ul>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}`;
}

/** Deletes the record of a training that is over. */
function Forget({ job }) {
  const [asked, setAsked] = useState(false);
  const [failed, setFailed] = useState(null);
  const yes = () => remove(`/api/jobs/${job.id}`).then(() => go("training"), (error) => setFailed(said(error)));
  return html`<li><button class="bad" onClick=${() => setAsked(true)}>Delete</button> <span class="help">Deletes this record; the SAEs stay.</span>
    ${asked && html`<${Sure} title=${`Delete training ${job.id}, ${job.spec.name}?`} verb="Delete" failed=${failed} onYes=${yes} onClose=${() => setAsked(false)}
      loses="Its record, its measurements, its log and its checkpoints go. The SAEs that it made stay." />`}</li>`;
}
