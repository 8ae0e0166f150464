import { post, said } from "../api.js";
import { useEffect, useState } from "preact/hooks";
import { count, share, size } from "../lib/format.js";
import { artifacts } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Sure } from "../ui/dialog.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";
import { Trash } from "./disk_trash.js";

const SAES = [
  ["SAE", "name", (one) => one.name],
  ["Weights", "figure", (one) => size(one.weights)],
  ["Features", "figure", (one) => size(one.features)],
  ["Exports", "figure", (one) => size(one.exports)],
  ["Checkpoints", "figure", (one) => size(one.checkpoints)],
  ["All", "figure", (one) => size(one.bytes)],
];
const WORDS = { tokens: "tokenizations", saes: "SAEs", runs: "runs: logs and metrics", backups: "backups of the database", steering: "largest activations" };
const COLOURS = 8; // those that are left over share one

/** What takes the disk, what of it could go, and the SAEs that can still be brought back. */
export function Disk() {
  const { found: use, failed, again } = useLoaded("/api/disk", artifacts.sae.value);
  if (!use) return failed ? html`<p class="refusal" role="alert">${failed}</p>` : html`<p class="empty late">Adding up what takes the disk.</p>`;
  return html`<section aria-labelledby="disk"><h3 id="disk">Disk <span class="number">${size(use.bytes)} in all, ${size(use.free_bytes)} free</span></h3>
    <${Places} use=${use} />
    ${use.saes.length > 0 && html`<${Table} label="Disk by SAE" columns=${SAES} rows=${use.saes} />`}
    <${Clean} groups=${use.clean} cleaned=${again} />
    <${Trash} use=${use} changed=${again} />
  </section>`;
}

/** Each folder's part of the whole: as a bar, and as the list that says what its colours are. */
function Places({ use }) {
  const places = Object.entries(use.places).filter(([, bytes]) => bytes > 0).sort((a, b) => b[1] - a[1]);
  const colour = (at) => ({ "--of": `var(--series-${Math.min(at, COLOURS - 1) + 1})`, "--part": places[at][1] / use.bytes });
  return html`<div class="card places">
    <div class="stacked" aria-hidden="true">${places.map(([place], at) => html`<span key=${place} style=${colour(at)}></span>`)}</div>
    <dl aria-label="Disk by folder">${places.map(([place, bytes], at) => html`<div key=${place}>
      <dt><i style=${colour(at)} aria-hidden="true"></i> ${WORDS[place] ?? place}</dt><dd>${size(bytes)} <span class="help">${bytes / use.bytes < 0.001 ? "under 0.1%" : share(bytes / use.bytes)}</span></dd></div>`)}</dl>
  </div>`;
}

/** What could be deleted without losing an SAE. */
function Clean({ groups, cleaned }) {
  const [asked, setAsked] = useState(null);
  const some = groups.filter(({ things }) => things > 0);
  const columns = [
    ["What", "name", (one) => one.what],
    ["Size", "figure", (one) => size(one.bytes)],
    ["Things", "figure", (one) => count(one.things)],
    ["What is lost", "text", (one) => one.lost],
    ["", "verbs", (one) => html`<button class="quiet" aria-label=${`Delete ${one.what}`} onClick=${() => setAsked(one.what)}>Delete</button>`],
  ];
  const close = (changed) => {
    setAsked(null);
    if (changed) cleaned();
  };
  return html`<h3>Could go</h3>
    ${some.length ? html`<${Table} label="What could go" columns=${columns} rows=${some} of=${(one) => one.what} />` : html`<p class="empty">Nothing: all that is here is needed.</p>`}
    ${asked && html`<${SureOf} what=${asked} close=${close} />`}`;
}

/** Ask once more, with what the studio would delete at this moment. */
function SureOf({ what, close }) {
  const [group, setGroup] = useState(null);
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  const ask = (dry_run) => post("/api/clean", { what: [what], dry_run });
  useEffect(() => {
    ask(true).then(({ groups }) => setGroup(groups[0]), (error) => setFailed(said(error)));
  }, []);
  const yes = () => {
    if (!group || busy) return;
    setBusy(true);
    ask(false).then(() => close(true), (error) => setFailed(said(error)) ?? setBusy(false));
  };
  const loses = group ? `${count(group.things)} ${group.things === 1 ? "thing goes" : "things go"}, ${size(group.bytes)}. What is lost: ${group.lost}.` : "Looking at what would go.";
  return html`<${Sure} title=${`Delete ${what}?`} verb="Delete" loses=${loses} failed=${failed} onYes=${yes} onClose=${() => close(false)} />`;
}
