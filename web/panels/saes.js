import { useState } from "preact/hooks";
import { ago, count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { artifacts, newest, slowClock } from "../state.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";
import { Sae } from "./sae.js";
import { AddSae } from "./sae_add.js";

const modelOf = (sae) => sae.model?.name ?? sae.model_name ?? "—";

const COLUMNS = [
  ["Name", "name", (sae) => html`<a href=${place("saes", [sae.name])}>${sae.name}</a>`],
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

/** The SAEs there are, the newest first; or the one that is open. */
export function Saes({ open }) {
  const [adding, setAdding] = useState(false);
  const list = newest("sae");
  const chosen = open[0] && artifacts.sae.value.get(open[0]);
  if (chosen) return html`<${Sae} sae=${chosen} key=${chosen.name} />`;
  const add = html`<button class="first" onClick=${() => setAdding(true)}>Add SAE</button>`;
  return html`<${Panel} title="SAEs" count=${list.length} verbs=${add}>
    ${list.length
      ? html`<${Table} label="SAEs" columns=${COLUMNS} rows=${list} />`
      : html`<${Empty} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post">
          No SAE is here yet. Training one on a tokenization makes it, or add one that somebody has published:</${Empty}>`}
    ${adding && html`<${AddSae} onClose=${() => setAdding(false)} />`}
  </${Panel}>`;
}
