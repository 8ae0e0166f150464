import { useEffect, useState } from "preact/hooks";
import { get, post } from "../api.js";
import { ago, size } from "../lib/format.js";
import { isEnded, isLive } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { linesOf } from "../lib/series.js";
import { artifacts, jobs, slowClock, watch, watched } from "../state.js";
import { Chart } from "../ui/chart.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Panel } from "../ui/panel.js";
import { Table } from "../ui/table.js";

// What is drawn: its name in the metrics, its title, its digits.
const CHARTS = [
  ["fvu", "FVU", 3],
  ["l0", "L0", 1],
  ["dead", "Dead latents, share", 3],
  ["loss", "Loss", 4],
  ["ce_delta", "ΔCE, nats", 3],
  ["tokens_per_s", "Tokens a second", 0],
];
const SPANS = [[0, "as measured"], [5, "a little"], [20, "much"]];

/** One training: how it goes, as charts; what it was asked; what it says of itself. */
export function Run({ id }) {
  const job = jobs.value.get(id);
  const [span, setSpan] = useState(0);
  const [failed, setFailed] = useState(null);
  useEffect(() => {
    watch(id).catch((error) => setFailed(said(error)));
    return () => watch(null);
  }, [id]);
  const way = html`<a href=${place("training")}>All trainings</a>`;
  if (!job) return html`<${Panel} title=${`Training ${id}`} verbs=${way}><p class="empty">There is no such training.</p></${Panel}>`;
  const Shown = isLive(job) ? LiveJob : isEnded(job) ? EndedJob : WaitingJob;
  const metrics = watched.value.job === id ? watched.value.metrics : [];
  const shown = isLive(job) ? html`<${Shown} job=${job} />` : html`<ul class="rows"><${Shown} job=${job} /></ul>`;
  return html`<${Panel} title=${job.spec.name} verbs=${way}>
    ${shown}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    <${Made} job=${job} />
    <form class="filters"><label>Smoothing <select onChange=${(event) => setSpan(Number(event.target.value))}>
      ${SPANS.map(([of, words]) => html`<option key=${of} value=${of}>${words}</option>`)}</select></label></form>
    <div class="charts">${CHARTS.map(([value, title, digits]) => {
      const { steps, lines } = linesOf(metrics, value);
      return steps.length > 1 && html`<${Chart} key=${value} title=${title} steps=${steps} lines=${lines} span=${span} digits=${digits} />`;
    })}</div>
    ${job.kind === "train" && isLive(job) && html`<${Learning} id=${id} />`}
    <${Checkpoints} id=${id} state=${job.state} />
    <${Asked} job=${job} />
    <${Said} id=${id} state=${job.state} />
  </${Panel}>`;
}

/** The SAEs that it has made. */
function Made({ job }) {
  const made = (job.makes?.names ?? []).filter((name) => artifacts.sae.value.has(name));
  if (!made.length) return null;
  return html`<p class="verbs">${made.map((name) => html`<a key=${name} class="button" href=${place("features", [name])}>Features of ${name}</a>`)}</p>`;
}

/** What a few features fire on, while they are learned. */
function Learning({ id }) {
  const [live, setLive] = useState([]);
  useEffect(() => {
    const look = () => get(`/api/jobs/${id}/live`).then((found) => setLive(found.saes), () => {});
    look();
    const timer = setInterval(look, 10_000);
    return () => clearInterval(timer);
  }, [id]);
  if (!live.length) return null;
  return html`<section aria-labelledby="learning"><h3 id="learning">What features learn</h3>
    ${live.map((one) => html`<ul class="rows" key=${one.sae}>${one.features.slice(0, 6).map((feature) => html`<li class="finding" key=${feature.feature}>
      <b>${feature.feature}</b> ${feature.windows.slice(0, 2).map((window, at) => html`<p key=${at} class="tokens">${window.before}<mark>${window.token}</mark>${window.after}</p>`)}</li>`)}</ul>`)}
  </section>`;
}

const CHECKPOINTS = [
  ["Step", "figure", (one) => one.step],
  ["FVU", "figure", (one) => one.fvu?.toFixed(3)],
  ["Size", "figure", (one) => size(one.bytes)],
  ["Best", "text", (one) => (one.best ? "best" : "")],
  ["Made", "made", (one) => ago(one.at, slowClock.value)],
];

function Checkpoints({ id, state }) {
  const [kept, setKept] = useState([]);
  useEffect(() => {
    get(`/api/jobs/${id}/checkpoints`).then(({ checkpoints }) => setKept(checkpoints), () => {});
  }, [id, state]);
  if (!kept.length) return null;
  return html`<section aria-labelledby="checkpoints"><h3 id="checkpoints">Checkpoints</h3>
    <${Table} label="Checkpoints" columns=${CHECKPOINTS} rows=${kept} of=${(one) => `${one.step} ${one.at}`} /></section>`;
}

/** The exact spec. */
function Asked({ job }) {
  const [told, setTold] = useState("");
  const again = () => {
    const taken = (name) => artifacts.sae.value.has(name) || [...jobs.value.values()].some((one) => !isEnded(one) && one.makes?.names.includes(name));
    let n = 2;
    while (taken(`${job.spec.name}-${n}`)) n++;
    post("/api/jobs", { spec: { ...job.spec, name: `${job.spec.name}-${n}` } }).then((made) => setTold(`Job ${made.id} does the same, as ${job.spec.name}-${n}.`), (error) => setTold(said(error)));
  };
  const given = Object.entries(job.spec).filter(([, value]) => value !== null);
  return html`<section aria-labelledby="asked"><h3 id="asked">What was asked</h3>
    <dl class="facts card">${given.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${[value].flat().join(", ")}</dd></div>`)}</dl>
    <p class="verbs"><button onClick=${again}>Run again</button> <span role="status">${told}</span></p></section>`;
}

function Said({ id, state }) {
  const [log, setLog] = useState("");
  const load = () => get(`/api/jobs/${id}/log`).then((found) => setLog(found.log), (error) => setLog(said(error)));
  return html`<details onToggle=${(event) => event.target.open && load()} key=${state}><summary>Log of the worker</summary><pre tabindex="0">${log}</pre></details>`;
}
