import { useState } from "preact/hooks";
import { between, share } from "../lib/figures.js";
import { count, number } from "../lib/format.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";
import { Intervals } from "../ui/interval.js";
import { Table } from "../ui/table.js";

const FEW = 6;

const link = (sae, latent) => html` <a href=${place("features", [sae.name, latent])}>${latent}</a>`;
const withInterval = (one) => one && html`${share(one.value)} <span class="details">${one.interval ? between(one, share) : ""}</span>`;

/** How often a question about the text is answered rightly by few latents, few numbers, the whole activation. */
export function Probing({ found, sae }) {
  const [all, setAll] = useState(false);
  if (!found) return null;
  const { probing, said } = found;
  if (!probing?.tasks?.length) return html`<div class="card"><h4>Probing</h4>${said.map((one) => html`<p key=${one}>${one}</p>`)}</div>`;
  const { mean, tasks } = probing;
  const names = { "latents 1": "the best latent", "numbers 1": "the best number", "latents 2": "2 latents", "numbers 2": "2 numbers", "latents 5": "5 latents", "numbers 5": "5 numbers", all: "the whole activation" };
  const columns = [
    ["Question", "text", (one) => html`<b>${one.name}</b> <span class="details">${one.question}</span>`],
    ...["latents 1", "numbers 1", "latents 5", "numbers 5", "all"].map((key) => [SHORT[key], "figure", (one) => withInterval(one.accuracy[key])]),
    ["Latents that tell most", "text", (one) => one.latents.slice(0, 3).map((latent) => link(sae, latent))],
  ];
  return html`<div class="probes"><h4>Probing</h4>
    <div class="card"><p>${said[0]}</p>
      ${mean && html`<${Intervals} title=${`Answered rightly, on average over ${count(tasks.length)} questions`} show=${share} from=${probing.majority}
        rows=${Object.entries(names).map(([key, name]) => [name, mean[key]])} />`}
      <p class="help">The line begins at chance. ${probing.limit}.</p></div>
    <${Table} label="Probing" columns=${columns} rows=${all ? tasks : tasks.slice(0, FEW)} of=${(one) => one.name} />
    ${tasks.length > FEW && !all && html`<button class="quiet" onClick=${() => setAll(true)}>Show all ${count(tasks.length)} questions</button>`}
  </div>`;
}

const SHORT = { "latents 1": "1 latent", "numbers 1": "1 number", "latents 5": "5 latents", "numbers 5": "5 numbers", all: "All" };

/** How often the latent for a first letter is silent while another one has taken its part. */
export function Absorption({ found, sae }) {
  const absorption = found?.absorption;
  if (!absorption) return null;
  const columns = [
    ["Letter", "name", (one) => one.letter],
    ["Words", "figure", (one) => count(one.words)],
    ["Absorbed", "figure", (one) => withInterval(one.rate)],
    ["Probe, F1", "figure", (one) => number(one.probe_f1, 2)],
    ["Main latents, F1", "figure", (one) => number(one.main_f1, 2)],
    ["Main latents", "text", (one) => one.main.map((latent) => link(sae, latent))],
    ["Who absorbs", "text", (one) => one.absorbing.map(({ latent, token, words }) => html`<span key=${latent}>${link(sae, latent)} <code>${token}</code> <span class="details">${count(words)} words</span> </span>`)],
  ];
  const left = Object.entries(absorption.left_out ?? {});
  return html`<div class="probes"><h4>Absorption</h4>
    <div class="card"><p>${found.said.at(-1)}</p><p class="help">${absorption.meaning}. ${absorption.limit}.</p></div>
    ${absorption.letters.length > 0 && html`<details><summary>The ${count(absorption.letters.length)} letters that were measured</summary>
      <${Table} label="Absorption" columns=${columns} rows=${absorption.letters} of=${(one) => one.letter} /></details>`}
    ${left.length > 0 && html`<details><summary>${count(left.length)} letters could not be measured</summary><ul class="plainlist">${left.map(([letter, why]) => html`<li key=${letter}><b>${letter}</b> ${why}</li>`)}</ul></details>`}
  </div>`;
}
