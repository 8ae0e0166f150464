import { number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { artifacts } from "../state.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

const COLUMNS = [
  ["SAE", "name", (one) => (artifacts.sae.value.has(one.sae) ? html`<a href=${place("saes", [one.sae])}>${one.sae}</a>` : one.sae)],
  ["FVU", "figure", (one) => number(one.fvu)],
  ["of as many principal components", "figure", (one) => number(one.pca_fvu)],
  ["of random directions", "figure", (one) => number(one.random_fvu)],
  ["L0", "figure", (one) => number(one.l0, 1)],
  ["Dead", "figure", (one) => share(one.dead)],
  ["ΔCE, nats", "figure", (one) => number(one.ce_delta)],
  ["", "verbs", (one) => artifacts.sae.value.has(one.sae) && html`<a href=${place("features", [one.sae])}>Features</a>
    <a href=${place("steering", [one.sae])}>Steer</a>`],
];

/** The SAEs that a training has made, measured on held-out text; what the figures mean; and those that failed. */
export function Made({ job }) {
  const { saes, failed = [] } = job.result ?? {};
  const alone = job.result && job.spec && { ...job.result, sae: job.result.sae ?? job.spec.name };
  const made = saes?.length ? saes : alone && job.state !== "failed" ? [alone] : [];
  if (!made.length && !failed.length) return null;
  const told = made.flatMap((one) => (one.verdict ?? []).map((sentence) => (made.length > 1 ? `${one.sae}: ${sentence}` : sentence)));
  return html`<section aria-labelledby="made"><h3 id="made">What came of it</h3>
    ${told.map((sentence) => html`<p class="verdict" key=${sentence}>${sentence}</p>`)}
    ${failed.map((one) => html`<p class="verdict refusal" key=${one.sae}>${one.sae} failed: ${one.message}</p>`)}
    ${made.length > 0 && html`<${Table} label="SAEs that it made" columns=${COLUMNS} rows=${made} of=${(one) => one.sae} />`}
  </section>`;
}
