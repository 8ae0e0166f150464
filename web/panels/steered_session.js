import { useEffect, useState } from "preact/hooks";
import { get, remove, said, submit } from "../api.js";
import { about, share, size } from "../lib/format.js";
import { done, isEnded, isLive, reason, stage, title } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { artifacts, groups, jobs, session, slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Bar } from "../ui/bar.js";
import { html } from "../ui/html.js";
import { stageWords } from "./steered_writing.js";

/** What lies in memory for steering, and the button that frees it. */
export function Session() {
  const now = session.value;
  const [failed, setFailed] = useState(null);
  const { found } = useLoaded(now && "/api/session", now?.state); // which measures its memory, as events do not
  if (!now) return html`<p class="session details">No model is in memory; the first text loads it.</p>`;
  const end = () => remove("/api/session").then(() => setFailed(null), (error) => setFailed(said(error)));
  const { model, precision, device, saes, state, expires_at, paused_jobs, held_until } = now;
  const { memory_bytes, gpu_bytes } = found?.session ?? now;
  const parts = [
    `${{ loading: "Loading", stopping: "Leaving memory:" }[state] ?? "In memory:"} ${model}${precision ? ` (${precision}${device ? ` on ${device}` : ""})` : ""}${saes.length ? ` with ${saes.join(", ")}` : ""}`,
    memory_bytes && size(memory_bytes),
    gpu_bytes && `${size(gpu_bytes)} of the GPU`,
    state === "busy" ? "in use" : expires_at && `ends ${soon(expires_at, slowClock.value)} when nobody uses it`,
    held_until && "held: no job takes its place",
  ];
  return html`<p class="session details">${parts.filter(Boolean).map((part) => html`<span key=${part}>${part}</span>`)}
    <button type="button" class="quiet" onClick=${end}>End session</button>
    ${paused_jobs.length > 0 && html`<b>${paused_jobs.map((id) => `Job ${id}`).join(", ")} ${paused_jobs.length > 1 ? "are" : "is"} paused for it and ${paused_jobs.length > 1 ? "go" : "goes"} on when it ends.</b>`}
    ${failed && html`<span class="refusal" role="alert">${failed}</span>`}</p>`;
}

function soon(iso, now) {
  const left = (Date.parse(iso) - now) / 1000;
  return left <= 1 ? "now" : `in ${about(left)}`;
}

/** What is done until the first token has come; what is missing; what holds the GPU. */
export function Stage({ run, wanting }) {
  const job = groups.value.live.find(({ lane }) => lane === "gpu");
  const { progress } = run;
  if (run.busy) {
    return html`<span class="details" role=${run.tokens ? undefined : "status"}>${stageWords(run)}…</span>
      ${progress?.total > 1 && html`<span class="loading"><${Bar} share=${progress.done / progress.total} label=${progress.stage} /></span>`}`;
  }
  return html`<span class="details">${wanting}</span>${job && html`<span class="details">${title(job).join(" ")} has the GPU${howFar(job)}.</span>`}`;
}

/** What is to be known of a text that a person has stopped. */
export const Stopped = ({ run }) => run.stopped && html`<p class="details" role="status">Stopped: what is here is not kept.</p>`;

/** ": train 45%, about 3 min left" */
function howFar(job) {
  const parts = [[stage(job)[0], done(job) !== null && share(done(job))].filter(Boolean).join(" "), job.progress?.eta_s && `${about(job.progress.eta_s)} left`].filter(Boolean);
  return parts.length ? `: ${parts.join(", ")}` : "";
}

/** Why nothing was written, and what can be done: try again, let the job pause, wait in its line. `again(body, pause)`. */
export function Refused({ run, body, again, model, onDone }) {
  const [queued, setQueued] = useState(null); // the job that writes instead
  if (queued) return html`<${Queued} id=${queued} onDone=${onDone} onClose=${() => setQueued(null)} />`;
  if (!run.failed) return null;
  const { code, job, choices = [] } = run.about ?? {};
  const placed = Object.keys(run.fields ?? {}).some((name) => ["prompt", "max_tokens", "samples", "sweep", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "precision"].includes(name));
  if (placed) return null;
  const cut = run.texts.some(Boolean);
  return html`<div class="refused card"><p class="refusal" role="alert">${cut ? "The text was cut off: " : ""}${run.failed}${/[.?!]$/.test(run.failed) ? "" : "."}</p>
    ${job && html`<${Holding} id=${job.id} />`}
    ${code === "out_of_memory" && html`<${Fits} body=${body} model=${model} />`}
    <p class="verbs">
      ${choices.includes("pause") && html`<button type="button" class="first" onClick=${() => again(body, true)}>Pause it and steer</button>`}
      ${choices.includes("queue") && html`<${Queue} body=${body} onQueued=${setQueued} />`}
      <button type="button" onClick=${() => again(body)}>${cut ? "Write again" : "Try again"}</button>
      ${code === "session_failed" && html`<a href=${place("system")}>What the studio says of the machine</a>`}
    </p></div>`;
}

/** What has the GPU, as it goes on. */
function Holding({ id }) {
  const job = jobs.value.get(id);
  if (!job) return null;
  return isLive(job)
    ? html`<div><p class="details">${title(job).join(" ")}${howFar(job)}</p><${Bar} share=${done(job)} label="Progress of the job that has the GPU" /></div>`
    : html`<p class="details">${title(job).join(" ")} has the GPU no more.</p>`;
}

/** What would take less memory. */
function Fits({ body, model }) {
  const texts = (1 + (body.sweep?.length || 1)) * (body.samples || 1);
  const now = model?.weight_bytes?.[body.precision || artifacts.sae.value.get(body.sae)?.resolved?.precision];
  const smaller = Object.entries(model?.weight_bytes ?? {}).filter(([, bytes]) => now && bytes < now).sort((a, b) => b[1] - a[1]);
  const ways = [
    (texts > 2 || body.max_tokens > 100) && `fewer or shorter texts (now ${texts} of ${body.max_tokens} tokens)`,
    smaller.length > 0 && `a lower precision, below Sampling: ${smaller.map(([name, bytes]) => `${name} takes ${size(bytes)}`).join(", ")} (now ${size(now)})`,
    "ending what else is in memory",
  ].filter(Boolean);
  return html`<p class="details">What takes less: ${ways.join("; ")}.</p>`;
}

/** The same as a job: it waits for its turn, and its texts are kept whether the page is open or not. */
function Queue({ body, onQueued }) {
  const [failed, setFailed] = useState(null);
  const [busy, setBusy] = useState(false);
  const queue = async () => {
    setBusy(true);
    try {
      onQueued((await submit({ kind: "steer", ...body })).id);
    } catch (error) {
      setFailed(said(error));
      setBusy(false);
    }
  };
  return html`<button type="button" disabled=${busy} onClick=${queue}>Wait for it</button>${failed && html`<span class="refusal" role="alert">${failed}</span>`}`;
}

function Queued({ id, onDone, onClose }) {
  const job = jobs.value.get(id);
  const over = job && isEnded(job);
  useEffect(() => {
    if (!over || job.state !== "done") return;
    kept(job).then(onDone, () => onDone({ ...job.result, id: null })).finally(onClose);
  }, [over]);
  if (over && job.state !== "done") {
    return html`<div class="refused card"><p class="refusal" role="alert">Job ${id} ${job.state}${reason(job) ? `: ${reason(job)}` : ""}.</p>
      <p class="verbs"><a href=${place("jobs")}>Open the jobs</a><button type="button" onClick=${onClose}>Close</button></p></div>`;
  }
  return html`<p class="details" role="status">Job ${id} writes it ${job && isLive(job) ? `now${howFar(job)}` : "when its turn comes"}; its texts will stand here, and among the runs below. <a href=${place("jobs")}>All jobs</a></p>`;
}

/** The run that a job has made, with its id. */
async function kept(job) {
  const { steerings } = await get(`/api/steerings?limit=50&sae=${encodeURIComponent(job.spec.sae)}`);
  const found = steerings.find((one) => one.job === job.id);
  return { ...job.result, id: found?.id ?? null };
}
