import { count, number } from "../lib/format.js";
import { place } from "../lib/route.js";
import { certified, deadOf, isAbout, labelled, latest, little, measuredBy, modelOf } from "../lib/saes.js";
import { artifacts, jobs } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Term } from "../ui/term.js";
import { Standing } from "./sae_rows.js";

/** What an SAE is, what it is worth in short, and what that means. */
export function Facts({ sae }) {
  const model = modelOf(sae);
  const ended = [...jobs.value.values()].filter((job) => isAbout(job, sae.name) && job.ended_at).length;
  const { found } = useLoaded(`/api/saes/${sae.id}/dependents`, ended);
  const facts = [
    ["FVU", number(latest(sae, "fvu"))],
    ["L0", number(latest(sae, "l0"), 1)],
    ["ΔCE, nats", number(latest(sae, "ce_delta"))],
    ["Dead", little(deadOf(sae))],
    ["Certificate", html`<${Standing} of=${certified(sae)} />`],
    ["Features", html`<a href=${place("features", [sae.name])}>${labelled(found, sae.width)}</a>`],
    ["Width", count(sae.width)],
    ["k", count(sae.k)],
    ["Architecture", sae.architecture],
    ["Model", artifacts.model.value.has(model) ? html`<a href=${place("models", [model])}>${model}</a>` : model],
    ["Hook", html`<code>${sae.hook}</code>`],
    sae.hook_out && sae.hook_out !== sae.hook && ["Rebuilds", html`<code>${sae.hook_out}</code>`],
  ];
  const verdict = sae.evaluation?.figures ? null : sae.verdict; // the evaluation says its own
  return html`<div class="card"><dl class="facts first-facts">${facts.filter(Boolean).map(([term, value]) => html`<div key=${term}><dt><${Term} of=${term} /></dt><dd>${value ?? "—"}</dd></div>`)}</dl>
    <p class="details">${measuredBy(sae)}</p>
    ${Array.isArray(verdict) && html`<div class="said">${verdict.map((one) => html`<p key=${one}>${one}</p>`)}</div>`}</div>`;
}
