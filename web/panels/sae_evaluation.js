import { useState } from "preact/hooks";
import { submit } from "../api.js";
import { baselines, between, figure, GROUPS } from "../lib/figures.js";
import { ago, count, duration, known } from "../lib/format.js";
import { evaluated, modelOf } from "../lib/saes.js";
import { newest, slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Form } from "../ui/form.js";
import { Bars } from "../ui/histogram.js";
import { html } from "../ui/html.js";
import { Intervals } from "../ui/interval.js";
import { Empty } from "../ui/panel.js";
import { Time, textField } from "./sae_compare.js";
import { Absorption, Probing } from "./sae_probes.js";

const TOKENS = 65_536;

/** What an SAE is worth on held-out text: every figure with its interval, and what they mean. */
export function Evaluation({ sae }) {
  const [asking, setAsking] = useState(false);
  const stands = evaluated(sae);
  const { found, failed } = useLoaded(stands === "there" ? `/api/saes/${sae.id}/files/evaluation.json` : null, sae.evaluation?.at);
  const ask = html`<button onClick=${() => setAsking(true)}>${stands === "none" ? "Evaluate" : "Evaluate again"}</button>`;
  return html`<section aria-labelledby="evaluation">
    <div class="heading"><h3 id="evaluation">Evaluation</h3>${stands !== "none" && ask}</div>
    ${stands === "none" && html`<${Empty} verb=${ask} line=${`mistudio sae eval ${sae.name}`}>
      It has not been evaluated: its figures would be measured on held-out text, each with its interval, beside what costs nothing to beat.</${Empty}>`}
    ${stands === "outdated" && html`<div class="card warned"><p><b>Outdated.</b> ${(sae.evaluation.verdict ?? []).join(" ")}</p></div>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${found && html`<${Found} found=${found} sae=${sae} />`}
    ${asking && html`<${Evaluate} sae=${sae} onClose=${() => setAsking(false)} />`}
  </section>`;
}

function Evaluate({ sae, onClose }) {
  const texts = newest("tokenization").filter((one) => one.model === modelOf(sae));
  const fields = [
    { name: "tokens", label: "Held-out tokens at most", kind: "number", min: 4096, help: "more makes the intervals narrower" },
    { name: "probes", label: "Also probing and absorption", kind: "switch", help: "what single latents know of questions that the text itself sets" },
    textField(texts),
  ];
  return html`<${Form} title=${`Evaluate ${sae.name}`} verb="Evaluate" fields=${fields} start=${{ tokens: TOKENS, probes: true }} onClose=${onClose}
    send=${(values) => submit({ kind: "evaluate", sae: sae.name, ...values })}>
    ${({ tokens }) => html`<${Time} kind="evaluate" tokens=${tokens} />`}</${Form}>`;
}

function Found({ found, sae }) {
  const { documents, density } = found;
  const units = { document: "document", run: "run of windows" }[documents.unit] ?? documents.unit;
  const several = documents.count === 1 ? units : units.replace(/^\w+/, "$&s");
  return html`<div class="card said">${found.verdict.map((one) => html`<p key=${one}>${one}</p>`)}
      <p class="details">on ${count(found.tokens)} held-out tokens of ${found.tokenization}, from ${count(documents.count)} ${several}${
        found.ce_tokens ? html`, the model’s loss on ${count(found.ce_tokens)} of them` : ""}; ${ago(found.at, slowClock.value)}, in ${duration(found.seconds)}</p></div>
    <div class="beside-baselines">
      ${["fvu", "ce_delta"].map((key) => html`<${Beside} key=${key} found=${found} of=${key} sae=${sae} />`)}
      <${Density} density=${density} tokens=${found.tokens} />
    </div>
    <${Figures} found=${found} />
    <${Probing} found=${found.probes} sae=${sae} /><${Absorption} found=${found.probes} sae=${sae} />`;
}

/** A figure beside what costs nothing to beat. */
function Beside({ found, of, sae }) {
  const [, name, show] = figure(of);
  const rows = [[sae.name, found.figures[of]], ...baselines(found, of)];
  return rows.length > 1 && html`<div class="card"><${Intervals} title=${`${name}, and what costs nothing to beat`} rows=${rows} show=${show} from=${0} /></div>`;
}

function Density({ density, tokens }) {
  const shares = density.log10_edges.map((edge) => 10 ** edge);
  const words = `how many latents fire on what share of ${count(tokens)} tokens, from rare to frequent`;
  const row = (n, at) => n > 0 && html`<tr key=${at}><td>${shares[at].toPrecision(2)} to ${shares[at + 1].toPrecision(2)}</td><td class="figure">${count(n)}</td></tr>`;
  return html`<div class="card"><b>Density</b> <span class="details">${words}; ${density.never ? `${count(density.never)} never did` : "every one did"}</span>
    <${Bars} counts=${density.latents} edges=${shares} label=${words} />
    <details><summary>Show data</summary><table class="plainly"><thead><tr><th scope="col">Share of tokens</th><th scope="col">Latents</th></tr></thead>
      <tbody>${density.latents.map(row)}</tbody></table></details></div>`;
}

/** Every figure, with what it means. */
function Figures({ found }) {
  const rows = (figures) => figures.filter(([key]) => known(found.figures[key]?.value)).map(([key, name, show, means]) => {
    const one = found.figures[key];
    return html`<tr key=${key} title=${found.formulas?.[key]?.formula}><th scope="row">${name}</th><td class="figure">${show(one.value)}</td>
      <td class="figure">${between(one, show)}</td><td class="means">${means}</td></tr>`;
  });
  return html`<table class="table figures" aria-label="Figures of the evaluation">
    <thead><tr><th scope="col">Figure</th><th scope="col" class="figure">Value</th><th scope="col" class="figure">95 % interval</th><th scope="col">What it is</th></tr></thead>
    ${GROUPS.map(([title, figures]) => html`<tbody key=${title}><tr class="group"><th colspan="4" scope="rowgroup">${title}</th></tr>${rows(figures)}</tbody>`)}
  </table>`;
}
