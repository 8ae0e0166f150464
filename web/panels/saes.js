import { ago, count, number, share } from "../lib/format.js";
import { newest, slowClock } from "../state.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";

const modelOf = (sae) => sae.model?.name ?? sae.model_name ?? "—";

const COLUMNS = [
  ["Name", "name", (sae) => sae.name],
  ["Model", "text", modelOf],
  ["Hook", "text code", (sae) => sae.hook],
  ["Width", "figure", (sae) => count(sae.width)],
  ["k", "figure", (sae) => count(sae.k)],
  ["FVU", "figure", (sae) => number(sae.fvu)],
  ["L0", "figure", (sae) => number(sae.l0, 1)],
  ["Alive", "figure", (sae) => share(sae.alive)],
  ["Made", "made", (sae) => html`<time datetime=${sae.created_at}>${ago(sae.created_at, slowClock.value)}</time>`],
  ["", "verbs", (sae) => html`<${Delete} noun="sae" one=${sae}
    loses="Its weights, its features and their labels go with it." />`],
];

/** The SAEs there are, the newest first. */
export function Saes() {
  const list = newest("sae");
  return html`<${Panel} title="SAEs" count=${list.length}>
    ${list.length
      ? html`<${Table} label="SAEs" columns=${COLUMNS} rows=${list} />`
      : html`<${Empty} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post">
          No SAE is here yet. Training one on a tokenization makes it:</${Empty}>`}
  </${Panel}>`;
}
