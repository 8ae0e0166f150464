import { useState } from "preact/hooks";
import { ago, count, known, number, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { sourceOf } from "../lib/saes.js";
import { slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";
import { CompareSaes } from "./sae_compare.js";

/** Where an SAE comes from: its training with its checkpoints, or what its maker says. */
export function From({ sae }) {
  const { imported, repair } = sae;
  return html`<section aria-labelledby="from"><h3 id="from">Where it comes from</h3>
    ${repair && html`<p class="card">Repaired: <a href=${place("saes", [repair.of])}>${repair.of}</a> ${repair.words}; its FVU was ${number(repair.fvu_before)} as declared.</p>`}
    ${imported && html`<${Imported} of=${imported} />`}
    ${!imported && !repair && html`<${Training} sae=${sae} />`}
    ${(sae.earlier?.length ?? 0) > 0 && html`<p class="details">It was called ${sae.earlier.join(", ")} before.</p>`}
  </section>`;
}

function Imported({ of }) {
  const declared = Object.entries(of.declared ?? {}).filter(([, value]) => value !== null);
  const facts = [["Format", of.format + (of.pickle ? ", converted from a pickle" : "")], ["Commit", of.revision?.slice(0, 12)], ["Licence", of.licence], ["Model, as its maker calls it", of.model],
    ...declared.map(([name, value]) => [`${name}, as its maker says`, typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value)])];
  return html`<div class="card"><p><code>${sourceOf({ imported: of })}</code></p>
    <dl class="facts">${facts.filter(([, value]) => value).map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    ${(of.notes ?? []).map((one) => html`<p class="details" key=${one}>${one}</p>`)}</div>`;
}

function Training({ sae }) {
  const [compared, setCompared] = useState(null);
  const { found } = useLoaded(sae.job === null ? null : `/api/jobs/${sae.job}/checkpoints`);
  const text = sae.tokenization?.name ?? sae.tokenization;
  const kept = (found?.checkpoints ?? []).filter((one) => !one.saes || one.saes.includes(sae.name) || one.saes.includes(sae.spec?.name));
  const columns = [
    ["Step", "figure", (one) => count(one.step)],
    ["FVU", "figure", (one) => number(one.fvu)],
    ["Size", "figure", (one) => size(one.bytes)],
    ["", "text", (one) => (one.best ? "best" : "")],
    ["Made", "made", (one) => ago(one.at, slowClock.value)],
    ["", "verbs", (one) => html`<button aria-label=${`Compare with step ${one.step}`} onClick=${() => setCompared(`${sae.name}@${one.step}`)}>Compare</button>`],
  ];
  const how = [text && `on ${text}`, sae.tokens && `${count(sae.tokens)} tokens`, known(sae.spec?.seed) && `seed ${sae.spec.seed}`].filter(Boolean).join(", ");
  return html`<div class="card"><p>Trained here ${sae.job !== null ? html`by <a href=${place("training", [sae.job])}>job ${count(sae.job)}</a>` : ""} ${how}.
      ${sae.extends?.sae && html` Its training went on from <a href=${place("saes", [sae.extends.sae])}>${sae.extends.sae}</a>.`}</p></div>
    ${kept.length > 0 && html`<${Table} label="Checkpoints" columns=${columns} rows=${kept} of=${(one) => `${one.step} ${one.at}`} />`}
    ${compared && html`<${CompareSaes} saes=${[sae.name, compared]} onClose=${() => setCompared(null)} />`}`;
}
