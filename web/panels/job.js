import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { UNKNOWN, count, size } from "../lib/format.js";
import { isEnded, isLive, title } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { jobs, phase } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Log } from "../ui/log.js";
import { Panel } from "../ui/panel.js";

const LOOK_MS = 5000;

/** One job: how it stands, what it was asked, the memory it was to take and takes, and what its worker says. */
export function Job({ id }) {
  const known = jobs.value.get(Number(id));
  const isNumber = /^\d{1,15}$/.test(id);
  const older = useLoaded(known || !isNumber ? null : `/api/jobs/${id}`, phase.value); // of the newest the stream tells
  const job = known ?? older.found;
  const way = html`<a href=${place("jobs")}>All jobs</a>`;
  if (!job) {
    return html`<${Panel} title=${`Job ${id}`} verbs=${way}>
      ${(older.failed || !isNumber) && html`<p class="refusal" role="alert">${older.failed ?? "Jobs have numbers, and this is none."}</p>`}</${Panel}>`;
  }
  const Row = isEnded(job) ? EndedJob : WaitingJob;
  return html`<${Panel} title=${title(job).join(" ")} verbs=${way}>
    ${isLive(job) ? html`<${LiveJob} job=${job} />` : html`<ul class="rows"><${Row} job=${job} /></ul>`}
    <${Memory} job=${job} />
    <${Asked} job=${job} />
    ${job.attempts > 0 && html`<section aria-labelledby="log"><h3 id="log">Log</h3><${Log} job=${job} /></section>`}
  </${Panel}>`;
}

/** What it was expected to take, and what it takes or has taken. */
function Memory({ job }) {
  const runs = isLive(job);
  const [taken, setTaken] = useState(/** @type {any} */ ({}));
  useEffect(() => {
    if (!runs) return;
    const look = () => get("/api/ps").then(({ running }) => setTaken(running.find((one) => one.job === job.id) ?? {}), () => {});
    look();
    const timer = setInterval(() => document.hidden || look(), LOOK_MS);
    return () => clearInterval(timer);
  }, [job.id, runs]);
  const facts = [
    ["Predicted", job.plan?.peak_bytes ?? taken.predicted_bytes],
    runs ? ["Now", taken.measured_bytes] : ["Measured at its peak", job.result?.peak_bytes],
    ["Now, on the GPU", runs ? taken.gpu_bytes : null],
    ["Disk", job.plan?.disk_bytes],
  ].filter(([, bytes]) => bytes != null);
  if (!facts.length) return null;
  return html`<section aria-labelledby="memory"><h3 id="memory">Memory</h3>
    <dl class="facts card">${facts.map(([term, bytes]) => html`<div key=${term}><dt>${term}</dt><dd>${size(bytes)}</dd></div>`)}</dl>
    ${job.plan?.verdict && html`<p class="details">${job.plan.verdict}</p>`}</section>`;
}

/** The exact spec. */
function Asked({ job }) {
  const given = Object.entries(job.spec).filter(([name, value]) => name !== "kind" && value !== null);
  const facts = [...given, ["priority", job.priority || null], ["attempts", job.attempts > 1 ? job.attempts : null]].filter(([, value]) => value !== null);
  return html`<section aria-labelledby="asked"><h3 id="asked">What was asked</h3>
    <dl class="facts card">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${written(value)}</dd></div>`)}</dl></section>`;
}

function written(value) {
  if (Array.isArray(value)) return value.map(written).join(", ") || UNKNOWN;
  if (typeof value === "object" && value !== null) return JSON.stringify(value);
  return Number.isInteger(value) ? count(value) : String(value);
}
