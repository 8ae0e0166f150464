import { useMemo, useState } from "preact/hooks";
import { isEnded } from "../lib/jobs.js";
import { chartOf, held, linesOf } from "../lib/overlay.js";
import { show } from "../route.js";
import { jobs } from "../state.js";
import { Chart } from "../ui/chart.js";
import { html } from "../ui/html.js";

// What is drawn: its name in the metrics, its title, its digits.
const CHARTS = [
  ["loss", "Loss", 4],
  ["fvu", "FVU", 3],
  ["eval_fvu", "FVU on held-out text", 3],
  ["l0", "L0", 1],
  ["dead", "Dead latents, share", 3],
  ["ce_delta", "ΔCE, nats", 3],
  ["tokens_per_s", "Tokens a second", 0],
  ["lr", "Learning rate", 5],
];
const SPANS = [0, 1, 2, 5, 10, 20, 50, 100, 200]; // measurements that are smoothed over

/** The measurements of a training and of those that lie over it, on charts that share their cursor. */
export function RunCharts({ job, others, runs, at }) {
  const [span, setSpan] = useState(0);
  const [byTokens, setByTokens] = useState(false);
  const [logX, setLogX] = useState(false);
  const [off, setOff] = useState(new Set());
  const lines = useMemo(() => linesOf(runs.map((run) => ({ ...run, ...about(run.job) }))), [at, runs.map(({ id }) => id).join()]);
  const drawn = useMemo(() => {
    const levels = levelsOf(job);
    return CHARTS.map(([value, title, digits]) => {
      const chart = chartOf(lines, value, off, byTokens);
      return { value, title, digits, ...(value === "eval_fvu" ? held(chart, levels) : chart) };
    });
  }, [lines, off, byTokens, job.result]);
  const measured = drawn.filter(({ steps }) => steps.length > 1);
  const failed = runs.filter((run) => run.failed);
  return html`<section aria-labelledby="measured">
    <h3 id="measured">What was measured</h3>
    <form class="filters chartways" onSubmit=${(event) => event.preventDefault()}>
      <label>Smoothing <input type="range" min="0" max=${SPANS.length - 1} value=${span} aria-valuetext=${spanWords(SPANS[span])}
        onInput=${({ target }) => setSpan(Number(target.value))} /> <span>${spanWords(SPANS[span])}</span></label>
      <label>Across <select value=${byTokens ? "tokens" : "steps"} onChange=${({ target }) => setByTokens(target.value === "tokens")}>
        <option value="steps">steps</option><option value="tokens">training tokens</option></select></label>
      <label class="check"><input type="checkbox" checked=${logX} onChange=${({ target }) => setLogX(target.checked)} /> Logarithmic ${byTokens ? "tokens" : "steps"}</label>
      <${Beside} job=${job} others=${others} />
    </form>
    ${lines.length > 1 && html`<${Legend} lines=${lines} off=${off} setOff=${setOff} />`}
    ${failed.map((run) => html`<p class="refusal" role="alert" key=${run.id}>Training ${run.id}: ${run.failed}</p>`)}
    ${measured.length
      ? html`<div class="charts">${measured.map(({ value, ...chart }) => html`<${Chart} key=${value} ...${chart} span=${SPANS[span]} logX=${logX}
          xWords=${byTokens ? tokens : undefined} />`)}</div>`
      : html`<p class="empty">${nothing(job, lines, off)}</p>`}
  </section>`;
}

function nothing(job, lines, off) {
  if (lines.length && off.size === lines.length) return "No line is drawn: choose one above.";
  if (lines.length) return "One step was measured, and a line takes two.";
  return isEnded(job) ? "Nothing was measured: it ended before its first step." : "Nothing has been measured yet: it begins with the first steps.";
}

const spanWords = (span) => (span ? `over ${span} measurements` : "as measured");

function about(job) {
  return { names: job?.makes?.names ?? [job?.spec.name].filter(Boolean), batch: job?.spec.batch_tokens ?? 1 };
}

const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
const tokens = (x) => `${short.format(x)} tokens`;

/** What an FVU is worth: that of as many principal components, and of random directions; known when it is over. */
function levelsOf(job) {
  const { pca_fvu: pca, random_fvu: random } = job.result ?? {};
  return [["principal components", pca], ["random directions", random]].filter(([, value]) => value != null).map(([name, value]) => ({ name, value }));
}

/** Other trainings to lay over this one, and away again. */
function Beside({ job, others }) {
  const lay = (ids) => show({ with: ids.join(",") || null });
  const left = [...jobs.value.values()].filter((one) => one.kind === "train" && one.progress && one.id !== job.id && !others.includes(one.id));
  const name = (id) => jobs.value.get(id)?.spec.name ?? `training ${id}`;
  return html`${left.length > 0 && html`<label>Compare with <select value="" onChange=${({ target }) => lay([...others, Number(target.value)])}>
      <option value="">choose a training</option>${left.sort((a, b) => b.id - a.id).map((one) => html`<option key=${one.id} value=${one.id}>${one.spec.name} (job ${one.id})</option>`)}</select></label>`}
    ${others.map((id) => html`<button type="button" class="chip" key=${id} aria-label=${`Compare no more with ${name(id)}`}
      onClick=${() => lay(others.filter((one) => one !== id))}>${name(id)} <span aria-hidden="true">✕</span></button>`)}`;
}

/** Which line is whose, and which are drawn. */
function Legend({ lines, off, setOff }) {
  const turn = (key) => {
    const next = new Set(off);
    if (!next.delete(key)) next.add(key);
    setOff(next);
  };
  return html`<fieldset class="drawnlines"><legend class="unseen">Lines that are drawn</legend>
    ${lines.map(({ key, name }, n) => html`<label key=${key}><input type="checkbox" checked=${!off.has(key)} onChange=${() => turn(key)} />
      <span class="swatch" aria-hidden="true" style=${{ background: `var(--series-${(n % 8) + 1})` }}></span>${name}</label>`)}
  </fieldset>`;
}
