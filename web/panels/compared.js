import { useEffect, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { between, COMPARED, figure } from "../lib/figures.js";
import { count, known } from "../lib/format.js";
import { isEnded, isLive } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { artifacts, jobs } from "../state.js";
import { html } from "../ui/html.js";
import { Intervals } from "../ui/interval.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Panel } from "../ui/panel.js";
import { Term } from "../ui/term.js";
import { CompareSaes } from "./sae_compare.js";
import { Pair } from "./compared_pair.js";

/** What a job of comparing has found; while it runs, how far it is. */
export function Compared({ id }) {
  const known = jobs.value.get(id);
  const [job, setJob] = useState(known);
  const [failed, setFailed] = useState("");
  const [again, setAgain] = useState(false);
  useEffect(() => {
    if (known?.state === job?.state && job?.result) return;
    get(`/api/jobs/${id}`).then(setJob, (error) => setFailed(said(error)));
  }, [id, known?.state]);
  const saes = job?.spec?.saes;
  const way = html`<a href=${place("saes")}>All SAEs</a> ${saes && html`<button onClick=${() => setAgain(true)}>Compare again</button>`}`;
  return html`<${Panel} title="Compared" verbs=${way}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${known && isLive(known) && html`<${LiveJob} job=${known} />`}
    ${known && !isLive(known) && known.state !== "done" && html`<ul class="rows">${isEnded(known)
      ? html`<${EndedJob} job=${known} />` : html`<${WaitingJob} job=${known} />`}</ul>`}
    ${job?.kind && job.kind !== "compare" && html`<p class="empty">Job ${id} compares nothing.</p>`}
    ${job?.kind === "compare" && job.result?.saes && html`<${Found} found=${job.result} />`}
    ${again && html`<${CompareSaes} saes=${saes} onClose=${() => setAgain(false)} />`}
  </${Panel}>`;
}

/** A link to an SAE that is here, else its name. */
const toSae = (name) => (artifacts.sae.value.has(name) ? html`<a href=${place("saes", [name])}>${name}</a>` : name);

function Found({ found }) {
  const { saes, pairs, notes, verdict } = found;
  const figures = COMPARED.map(figure).filter(([key]) => saes.some((one) => known(one.figures[key]?.value)));
  const drawn = figures.filter(([key]) => saes.some((one) => one.figures[key]?.interval));
  const said = [...verdict, ...pairs.flatMap((pair) => pair.verdict)];
  return html`<section class="card said" aria-label="Verdict">${said.map((one) => html`<p key=${one}>${one}</p>`)}
      ${notes.map((one) => html`<p class="details" key=${one}>${one}</p>`)}
      <p class="details">on ${count(found.tokens)} held-out tokens of ${found.tokenization}, ${count(found.documents)} ${found.unit}${found.documents === 1 ? "" : "s"}${
        found.ce_tokens ? `; ΔCE and KL on ${count(found.ce_tokens)}, in nats` : ""}; intervals are of 95 %</p></section>
    <div class="sideways"><${Figures} saes=${saes} figures=${figures} /></div>
    <section aria-labelledby="drawn"><h3 id="drawn">Intervals</h3><div class="plots">${drawn.map(([key, name, show, means]) => html`<div class="card" key=${key}>
      <${Intervals} title=${name} show=${show} coloured rows=${saes.map((one) => [one.sae, one.figures[key]])} /><p class="help">${means}</p></div>`)}</div></section>
    ${pairs.map((pair) => html`<${Pair} pair=${pair} key=${`${pair.a} ${pair.b}`} />`)}`;
}

/** A column for each SAE. */
function Figures({ saes, figures }) {
  /** @type {[title: string, show: (one: any) => any][]} */
  const about = [["Architecture", (one) => one.architecture ?? "—"], ["Width", (one) => count(one.width)], ["k", (one) => count(one.k)], ["Hook", (one) => html`<code>${one.hook}</code>`]];
  return html`<table class="table figures" aria-label="Figures">
    <thead><tr><th></th>${saes.map((one) => html`<th scope="col" key=${one.sae}>${toSae(one.name)}${one.step === null ? "" : ` at step ${count(one.step)}`}</th>`)}</tr></thead>
    <tbody>${about.map(([title, show]) => html`<tr key=${title}><th scope="row"><${Term} of=${title} /></th>${saes.map((one) => html`<td key=${one.sae}>${show(one)}</td>`)}</tr>`)}
      ${figures.map(([key, name, show]) => html`<tr key=${key}><th scope="row"><${Term} of=${name} /></th>${saes.map((one) => html`<td key=${one.sae}><${Value} of=${one.figures[key]} show=${show} /></td>`)}</tr>`)}</tbody></table>`;
}

/** A figure with its interval. */
function Value({ of, show }) {
  if (!known(of?.value)) return "—";
  return html`<span class="figure">${show(of.value)}</span> ${of.interval && html`<span class="details figure">${between(of, show)}</span>`}`;
}
