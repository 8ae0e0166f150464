import { useState } from "preact/hooks";
import { submit } from "../api.js";
import { ago, count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { go } from "../route.js";
import { artifacts, newest, slowClock } from "../state.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Delete } from "../ui/rows.js";
import { Table } from "../ui/table.js";
import { Compared } from "./compared.js";
import { Sae } from "./sae.js";
import { AddSae } from "./sae_add.js";

const modelOf = (sae) => sae.model?.name ?? sae.model_name ?? "—";

/** A figure of its evaluation where it has one, else as it was at the end of its training. */
const latest = (sae, name) => sae.evaluation?.figures?.[name]?.value ?? sae[name];

const COLUMNS = [
  ["Name", "name", (sae) => html`<a href=${place("saes", [sae.name])}>${sae.name}</a>`],
  ["Model", "text", modelOf],
  ["Hook", "text code", (sae) => sae.hook],
  ["Width", "figure", (sae) => count(sae.width)],
  ["k", "figure", (sae) => count(sae.k)],
  ["FVU", "figure", (sae) => number(latest(sae, "fvu"))],
  ["L0", "figure", (sae) => number(latest(sae, "l0"), 1)],
  ["Alive", "figure", (sae) => share(latest(sae, "alive"))],
  ["Tags", "text", (sae) => sae.tags?.join(", ") || "—"],
  ["Made", "made", (sae) => html`<time datetime=${sae.created_at}>${ago(sae.created_at, slowClock.value)}</time>`],
  ["", "verbs", (sae) => html`<${Delete} noun="sae" one=${sae}
    loses="It goes into the trash with its features and labels, and can be brought back for 7 days." />`],
];

/** The SAEs there are, the newest first; or the one that is open; or what comparing some has found. */
export function Saes({ open }) {
  const [adding, setAdding] = useState(false);
  const [chosen, setChosen] = useState([]);
  const [failed, setFailed] = useState("");
  const list = newest("sae");
  const one = open[0] && artifacts.sae.value.get(open[0]);
  if (open[0] === "compare" && open[1]) return html`<${Compared} id=${Number(open[1])} key=${open[1]} />`;
  if (one) return html`<${Sae} sae=${one} key=${one.name} />`;
  const choose = ({ name }, is) => setChosen(is ? [...chosen, name] : chosen.filter((other) => other !== name));
  const compare = () => submit({ kind: "compare", saes: chosen }).then((job) => go("saes", ["compare", job.id]), (error) => setFailed(said(error)));
  const pick = ["", "pick", (sae) => html`<input type="checkbox" aria-label=${`Choose ${sae.name}`} checked=${chosen.includes(sae.name)}
    onChange=${(event) => choose(sae, event.target.checked)} />`];
  const verbs = html`${list.length > 1 && html`<button disabled=${chosen.length < 2 || chosen.length > 8} title="choose two to eight SAEs" onClick=${compare}>Compare</button>`}
    <button class="first" onClick=${() => setAdding(true)}>Add SAE</button>`;
  return html`<${Panel} title="SAEs" count=${list.length} verbs=${verbs}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${list.length
      ? html`<${Table} label="SAEs" columns=${list.length > 1 ? [pick, ...COLUMNS] : COLUMNS} rows=${list} />`
      : html`<${Empty} line="mistudio train start --tokenization NAME --hook blocks.3.hook_resid_post">
          No SAE is here yet. Training one on a tokenization makes it, or add one that somebody has published:</${Empty}>`}
    ${adding && html`<${AddSae} onClose=${() => setAdding(false)} />`}
  </${Panel}>`;
}
