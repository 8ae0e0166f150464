import { useState } from "preact/hooks";
import { remove, said } from "../api.js";
import { joined } from "../lib/format.js";
import { outcome, reason, title } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { groups, jobs, phase, sample, see, session, unseen } from "../state.js";
import { html } from "./html.js";
import { Later } from "./later.js";

const Running = (props) => html`<${Later} from=${() => import("./running.js").then((found) => found.Running)} ...${props} />`;

/** What is at work and how far it is, what waits, what has failed unseen: at the foot of every panel. */
export function JobBar() {
  const { live } = groups.value;
  const job = live.find(({ lane }) => lane === "gpu") ?? live[0];
  const holds = session.value;
  return html`<footer class="jobbar">
    <${Failed} />
    ${job ? html`<${Running} job=${job} key=${job.id}><${More} shown=${1} /></${Running}>` : !holds && html`<${Idle} />`}
    ${holds && html`<${Session} session=${holds} last=${!job} />`}
  </footer>`;
}

function Idle() {
  const hasGpu = sample.value?.gpus?.length > 0;
  return html`<div class="at"><p>Nothing runs.${hasGpu && html` <span>GPU free</span>`}</p><${More} shown=${0} /></div>`;
}

/** How many more there are, and the way to all. */
function More({ shown }) {
  const { live, waiting } = groups.value;
  const [others, paused] = [live.length - shown, waiting.filter(({ state }) => state === "paused").length];
  const wait = waiting.length - paused;
  const parts = [others > 0 && `${others} more`, wait > 0 && `${wait} ${wait === 1 ? "waits" : "wait"}`, paused > 0 && `${paused} paused`];
  return html`<a class="more" href=${place("jobs")}>${joined(parts) || "All jobs"}</a>`;
}

const DOES = { loading: "is loading for steering", stopping: "is leaving memory", busy: "is steering" };

/** What is kept in memory for steering, whether it writes or not: no job has the GPU meanwhile. */
function Session({ session: { model, saes, state, progress, paused_jobs }, last }) {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const end = () => {
    setBusy(true);
    setFailed("");
    remove("/api/session").catch((error) => setFailed(said(error))).finally(() => setBusy(false));
  };
  const what = saes.length ? `${model} with ${saes.length} ${saes.length === 1 ? "SAE" : "SAEs"}` : model;
  const waits = paused_jobs.length > 0 && `job ${paused_jobs.join(", ")} goes on when it ends`;
  return html`<div class="at">
    <p><a href=${place("steering")}>${what}</a> ${DOES[state] ?? "is kept in memory for steering"}
      <span> ${joined([state === "loading" && progress?.stage, waits])}</span>
      ${failed && html`<span class="refusal" role="alert"> ${failed}</span>`}</p>
    <button disabled=${phase.value !== "live" || busy || state === "stopping"} aria-label="End the session" onClick=${end}>End</button>
    ${last && html`<${More} shown=${0} />`}
  </div>`;
}

/** What has failed since somebody looked last. */
function Failed() {
  const [job, ...others] = unseen.value;
  if (!job) return null;
  const seen = others.length ? "I have seen them" : "I have seen it";
  const more = others.length > 0 && html` <a href=${place("jobs")}>and ${others.length} more</a>`;
  return html`<div class="at bad">
    <p><a href=${place("jobs", [job.id])}>${title(job).join(" ")}</a> <b class="refusal">${outcome(job)}</b> <span>${reason(job)}</span>${more}</p>
    <button class="quiet" aria-label=${seen} title=${seen} onClick=${() => see(jobs.peek().get(job.id))}>✕</button>
  </div>`;
}
