import { useEffect, useState } from "preact/hooks";
import { get, said, submit } from "../api.js";
import { ago, count, number, share, size } from "../lib/format.js";
import { isEnded } from "../lib/jobs.js";
import { go } from "../route.js";
import { slowClock } from "../state.js";
import { html } from "../ui/html.js";
import { Log } from "../ui/log.js";
import { Table } from "../ui/table.js";
import { Tokens } from "../ui/tokens.js";

const LOOK_MS = 10_000;

/** What a few features fire on, while they are learned. */
export function Learning({ id, works }) {
  const [live, setLive] = useState([]);
  useEffect(() => {
    const look = () => document.hidden || get(`/api/jobs/${id}/live`).then((found) => setLive(found.saes), () => {});
    look();
    const timer = works ? setInterval(look, LOOK_MS) : 0;
    return () => clearInterval(timer);
  }, [id, works]);
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
export function Checkpoints({ job, kept }) {
  const [told, setTold] = useState("");
  if (!kept?.length) return null;
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
export function Said({ job }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${({ target }) => setOpen(target.open)}><summary>Log of the worker</summary>${open && html`<${Log} job=${job} />`}</details>`;
}
