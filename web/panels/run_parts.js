import { useEffect, useRef, useState } from "preact/hooks";
import { get, submit } from "../api.js";
import { ago, count, number, share, size } from "../lib/format.js";
import { isEnded, isLive } from "../lib/jobs.js";
import { go } from "../route.js";
import { slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";
import { Tokens } from "../ui/tokens.js";

const LOOK_MS = 10_000;
const LOG_MS = 2000;
const LOG_BYTES = 50_000;

/** Ask at once and again every `every_ms`, for as long as it is wanted and somebody looks. */
function useAgain(ask, every_ms, wanted, about) {
  useEffect(() => {
    if (!wanted) return;
    ask();
    const timer = every_ms && setInterval(() => document.hidden || ask(), every_ms);
    return () => clearInterval(timer);
  }, about);
}

/** What a few features fire on, while they are learned. */
export function Learning({ id }) {
  const [live, setLive] = useState([]);
  useAgain(() => get(`/api/jobs/${id}/live`).then((found) => setLive(found.saes), () => {}), LOOK_MS, true, [id]);
  if (!live.length) return null;
  return html`<section aria-labelledby="learning"><h3 id="learning">What features learn</h3>
    ${live.map((one) => html`<details key=${one.sae} open=${one === live[0]}><summary>${one.sae}, step ${count(one.step)}</summary>
      <ul class="rows learning">${one.features.map((feature) => html`<${Learned} key=${feature.feature} feature=${feature} />`)}</ul></details>`)}
  </section>`;
}

/** A feature and where it was strongest so far, shaded by how strong. */
function Learned({ feature: { feature, density, windows } }) {
  const most = Math.max(...windows.map(({ value }) => value));
  const line = (text) => text.replace(/\s*\n\s*/g, " ↵ ");
  return html`<li class="finding"><p><b>Feature ${feature}</b> <span class="details">on ${share(density)} of the tokens</span></p>
    ${windows.slice(0, 3).map(({ value, before, token, after }, at) => html`<p class="window" key=${at}><span class="figure">${number(value, 1)}</span>
      <${Tokens} texts=${[line(before), line(token), line(after)]} values=${[0, value, 0]} most=${most} peak=${1} /></p>`)}</li>`;
}

/** The checkpoints that are kept, each an SAE that can be compared with what came of it. */
export function Checkpoints({ job }) {
  const { found } = useLoaded(`/api/jobs/${job.id}/checkpoints`, job.state);
  const [told, setTold] = useState("");
  const kept = found?.checkpoints ?? [];
  if (!kept.length) return null;
  const compare = (sae, step) => submit({ kind: "compare", saes: [`${sae}@${step}`, sae] }).then(() => go("jobs"), (error) => setTold(said(error)));
  const comparable = (one) => job.state === "done" && one.step < job.result?.steps && (one.saes?.length ?? job.makes.names.length) === 1 && (one.saes?.[0] ?? job.makes.names[0]);
  const columns = [
    ["Step", "figure", (one) => count(one.step)],
    ["FVU", "figure", (one) => number(one.fvu)],
    ["Size", "figure", (one) => size(one.bytes)],
    ["SAEs", "text", (one) => one.saes?.join(", ") ?? "all"],
    ["Best", "text", (one) => (one.best ? "best" : "")],
    ["Made", "made", (one) => html`<time datetime=${one.at}>${ago(one.at, slowClock.value)}</time>`],
    ["", "verbs", (one) => comparable(one) && html`<button class="quiet" onClick=${() => compare(comparable(one), one.step)}>Compare with the end</button>`],
  ];
  return html`<section aria-labelledby="checkpoints"><h3 id="checkpoints">Checkpoints</h3>
    <${Table} label="Checkpoints" columns=${columns} rows=${kept} of=${(one) => `${one.step} ${one.at}`} />
    ${told && html`<p class="refusal" role="alert">${told}</p>`}
    <p class="help">${isEnded(job)
      ? "An SAE as it was at one of them is SAE@STEP. They go with the training's record, and with the clean-up under System."
      : `Together ${size(kept.reduce((sum, one) => sum + one.bytes, 0))}. The training goes on from the newest when it is cut off.`}</p>
  </section>`;
}

/** The end of what the worker wrote; it follows while the training runs. */
export function Log({ job }) {
  const [open, setOpen] = useState(false);
  const [log, setLog] = useState("");
  const box = useRef(null);
  const load = () => get(`/api/jobs/${job.id}/log?tail_bytes=${LOG_BYTES}`).then((found) => setLog(found.log), (error) => setLog(said(error)));
  useAgain(load, isLive(job) ? LOG_MS : 0, open, [open, job.id, job.state]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [log]);
  return html`<details id="log" onToggle=${({ target }) => setOpen(target.open)}><summary>Log of the worker</summary>
    <pre tabindex="0" ref=${box} aria-label="Log of the worker">${log || "It has written nothing."}</pre></details>`;
}
