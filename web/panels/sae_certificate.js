import { useState } from "preact/hooks";
import { submit } from "../api.js";
import { ago, count, known, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { certified, modelOf } from "../lib/saes.js";
import { artifacts, newest, slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Empty } from "../ui/panel.js";
import { Table } from "../ui/table.js";
import { Time, textField } from "./sae_compare.js";
import { Standing } from "./sae_rows.js";

const TOKENS = 4096;
const FEW = 8; // ways of the lowest FVU, beside the declared one

/** Whether an SAE is read as it was meant: which ways were tried, and which holds. */
export function Certificate({ sae }) {
  const [asking, setAsking] = useState(null); // "certify" or "repair"
  const stands = certified(sae);
  const there = !["nothing", "changed"].includes(stands.holds);
  const { found, failed } = useLoaded(there ? `/api/saes/${sae.id}/files/certificate.json` : null, sae.certificate?.at);
  const ask = html`<button onClick=${() => setAsking("certify")}>${stands.holds === "nothing" ? "Certify" : "Certify again"}</button>`;
  return html`<section aria-labelledby="certificate">
    <div class="heading"><h3 id="certificate">Certificate</h3> ${stands.holds !== "nothing" && html`<${Standing} of=${stands} />`}
      ${stands.holds === "other" && html`<button class="first" onClick=${() => setAsking("repair")}>Repair</button>`}${stands.holds !== "nothing" && ask}</div>
    ${stands.holds === "nothing" && html`<${Empty} verb=${ask} line=${`mistudio sae certify ${sae.name}`}>
      It has no certificate: it would be run on held-out text in each way in which it may have been meant.</${Empty}>`}
    ${stands.holds === "changed" && html`<div class="card warned"><p><b>Outdated.</b> ${(sae.certificate.verdict ?? []).join(" ")}</p></div>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${there && html`<${Said} sae=${sae} />`}
    ${found && html`<${Tried} found=${found} />`}
    ${asking && html`<${Certify} sae=${sae} repair=${asking === "repair"} onClose=${() => setAsking(null)} />`}
  </section>`;
}

function Certify({ sae, repair, onClose }) {
  const texts = newest("tokenization").filter((one) => one.model === modelOf(sae));
  const fields = [{ name: "tokens", label: "Held-out tokens", kind: "number", min: 512 }, textField(texts)];
  const start = { tokens: Math.max(sae.certificate?.tokens ?? 0, TOKENS) };
  return html`<${Form} title=${repair ? `Repair ${sae.name}` : `Certify ${sae.name}`} verb=${repair ? "Repair" : "Certify"} fields=${fields} start=${start} onClose=${onClose}
    send=${(values) => submit({ kind: "certify", sae: sae.name, ...values, ...(repair ? { repair } : {}) })}>
    ${({ tokens }) => html`${repair && html`<p>It is certified again, and the SAE as it was meant is written as <b>${sae.name}-repaired</b>; this one stays as it is.</p>`}
      <${Time} kind="certify" tokens=${tokens} />`}</${Form}>`;
}

function Said({ sae }) {
  const { verdict, tokens, tokenization, at, repaired } = sae.certificate;
  const there = repaired && artifacts.sae.value.has(repaired);
  return html`<div class="card said">${(verdict ?? []).map((one) => html`<p key=${one}>${one}</p>`)}
    ${repaired && html`<p>The SAE that is written as it was meant: ${there ? html`<a href=${place("saes", [repaired])}>${repaired}</a>` : `${repaired}, which is not here any more`}</p>`}
    <p class="details">on ${count(tokens)} held-out tokens of ${tokenization}, ${ago(at, slowClock.value)}</p></div>`;
}

/** Of FVU against the declared way, with half the width of its interval: "+300% ± 37". */
function change(found) {
  if (!found) return "";
  const percent = 100 * found.estimate;
  const half = 50 * (found.high - found.low);
  return `${percent > 0 ? "+" : ""}${percent.toFixed(1)}% ± ${half.toFixed(1)}`;
}

const WAYS = [
  ["Read", "text", (one) => one.words],
  ["FVU", "figure", (one) => number(one.fvu)],
  ["Against declared", "figure", (one) => change(one.fvu_change)],
  ["L0", "figure", (one) => number(one.l0, 1)],
  ["Alive", "figure", (one) => share(one.alive)],
];

function Tried({ found }) {
  const [all, setAll] = useState(false);
  const [declared, ...others] = found.tried;
  const infinite = (one) => (known(one.fvu) ? one.fvu : Infinity);
  others.sort((a, b) => infinite(a) - infinite(b));
  const more = others.length - FEW;
  return html`<details><summary>The ${count(found.tried.length)} ways that were tried</summary>
    <${Table} label="Ways that were tried" columns=${WAYS} rows=${[declared, ...(all ? others : others.slice(0, FEW))]} of=${(one) => one.words} />
    ${more > 0 && !all && html`<button class="quiet" onClick=${() => setAll(true)}>Show ${count(more)} more with a higher FVU</button>`}
    <p class="help">A way is better when its FVU is lower by ${share(found.better.least)} or more, and by ${found.better.standard_errors} standard errors.</p>
  </details>`;
}
