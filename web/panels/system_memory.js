import { ago, count, duration, share, size } from "../lib/format.js";
import { title } from "../lib/jobs.js";
import { memoryOfEnded } from "../lib/machine.js";
import { place } from "../lib/route.js";
import { jobs, slowClock } from "../state.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

const ENDED = [
  ["Job", "name", ({ job }) => html`<a href=${job.kind === "train" ? place("training", [job.id]) : place("jobs")}>${title(job).join(" ")}</a>`],
  ["Predicted", "figure", ({ predicted }) => size(predicted)],
  ["At its peak", "figure", ({ measured }) => size(measured)],
  ["Off by", "figure", ({ off }) => `${off < 0 ? "−" : "+"}${share(Math.abs(off))}`],
  ["Ended", "made", ({ job }) => ago(job.ended_at, slowClock.value)],
];

/** The memory of each job that runs, as it was predicted and as it is; and of those that ended last. */
export function AtWork({ running }) {
  const ended = memoryOfEnded([...jobs.value.values()]);
  const all = running.map((one) => ({ ...one, ...memoryOf(one) }));
  const most = Math.max(1, ...all.flatMap(({ predicted, measured }) => [predicted ?? 0, measured ?? 0]));
  return html`<section aria-labelledby="works"><h3 id="works">At work</h3>
    ${all.length ? html`<ul class="rows">${all.map((one) => html`<${Memory} key=${one.job} one=${one} most=${most} />`)}</ul>` : html`<p class="empty">No job runs.</p>`}
    ${ended.length > 0 && html`<div class="ended"><h3>Memory of jobs that ended</h3>
      <${Table} label="Memory of ended jobs" columns=${ENDED} rows=${ended} of=${({ job }) => job.id} /></div>`}
  </section>`;
}

/** A plan is of the memory that the job computes in: the GPU's where there is one. */
function memoryOf(one) {
  const onGpu = jobs.value.get(one.job)?.plan?.budget?.device === "cuda";
  return { predicted: one.predicted_bytes, measured: onGpu ? one.gpu_bytes : one.measured_bytes, onGpu };
}

function Memory({ one, most }) {
  const job = jobs.value.get(one.job);
  const way = [one.stage ?? one.state, one.eta_s !== null && `${duration(one.eta_s)} left`, one.onGpu && `its processes ${size(one.measured_bytes)}`];
  return html`<li class="memory">
    <div><p class="title">${job ? title(job).join(" ") : `${one.kind.replaceAll("_", " ")} ${one.name ?? ""}`}</p>
      <p class="details">job ${count(one.job)} · ${way.filter(Boolean).join(" · ")}</p></div>
    <dl aria-label=${`Memory of job ${one.job}${one.onGpu ? " on the GPU" : ""}`}>
      <dt>Predicted</dt><dd><${Part} bytes=${one.predicted} most=${most} kind="predicted" unknown="not predicted" /></dd>
      <dt>Measured</dt><dd><${Part} bytes=${one.measured} most=${most} kind="measured" unknown="not known yet" /></dd>
    </dl>
  </li>`;
}

function Part({ bytes, most, kind, unknown }) {
  if (bytes === null || bytes === undefined) return html`<span class="help">${unknown}</span>`;
  return html`<span class=${`part ${kind}`} style=${{ "--part": bytes / most }} aria-hidden="true"></span> <span class="figure">${size(bytes)}</span>`;
}
