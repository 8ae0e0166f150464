import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { count, number, share } from "../lib/format.js";
import { isEnded, isLive } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { jobs } from "../state.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Panel } from "../ui/panel.js";
import { Table } from "../ui/table.js";

const FIGURES = [
  ["FVU", "fvu", number],
  ["L0", "l0", (x) => number(x, 1)],
  ["Cosine", "cosine", number],
  ["ΔCE, nats", "ce_delta", number],
  ["Recovered, of zeros", "ce_recovered_zero", share],
  ["KL, nats", "kl", number],
  ["Alive", "alive", share],
  ["Dense", "dense", share],
];

/** What a job of comparing has found; while it runs, how far it is. */
export function Compared({ id }) {
  const known = jobs.value.get(id);
  const [job, setJob] = useState(known);
  const [failed, setFailed] = useState("");
  useEffect(() => {
    if (known?.state === job?.state && job?.result) return;
    get(`/api/jobs/${id}`).then(setJob, (error) => setFailed(said(error)));
  }, [id, known?.state]);
  const way = html`<a href=${place("saes")}>All SAEs</a>`;
  return html`<${Panel} title="Compared" verbs=${way}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${known && isLive(known) && html`<${LiveJob} job=${known} />`}
    ${known && !isLive(known) && known.state !== "done" && html`<ul class="rows">${isEnded(known)
      ? html`<${EndedJob} job=${known} />` : html`<${WaitingJob} job=${known} />`}</ul>`}
    ${job?.result?.saes && html`<${Found} found=${job.result} />`}
  </${Panel}>`;
}

/** A figure with its interval. */
export function withInterval(one, show) {
  if (!one || one.value === null) return "—";
  return one.interval ? html`${show(one.value)} <span class="details">${one.interval.map((end) => show(end)).join(" to ")}</span>` : show(one.value);
}

function Found({ found }) {
  const columns = [["", "name", ([title]) => title],
    ...found.saes.map((sae) => [sae.sae, "text", ([, name, show]) => withInterval(sae.figures[name], show)])];
  return html`<${Table} label="Figures" columns=${columns} rows=${FIGURES} of=${([title]) => title} />
    <p class="details">on ${count(found.tokens)} held-out tokens of ${found.tokenization}, ${count(found.documents)} ${found.unit}s; beside a figure its interval of 95 %</p>
    ${[...found.notes, ...found.verdict].map((one) => html`<p class="card" key=${one}>${one}</p>`)}
    ${found.pairs.map((pair) => html`<${Pair} pair=${pair} key=${`${pair.a} ${pair.b}`} />`)}`;
}

function Pair({ pair }) {
  const { a, b, matching } = pair;
  const side = (here, there, one) => html`<p>Of ${here}’s ${count(one.alive)} alive features ${share(one.matched)} are in ${there} (cosine above 0.7);
    best cosine ${number(one.mean, 2)} on average, at random ${number(one.random.mean, 2)}.</p>`;
  return html`<section class="card"><h3>${a} and ${b}</h3>${pair.verdict.map((one) => html`<p key=${one}>${one}</p>`)}
    ${matching && html`${side(a, b, matching.a_in_b)}${side(b, a, matching.b_in_a)}`}</section>`;
}
