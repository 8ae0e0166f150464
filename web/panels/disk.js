import { useEffect, useState } from "preact/hooks";
import { get, post } from "../api.js";
import { ago, count, size } from "../lib/format.js";
import { slowClock } from "../state.js";
import { Sure } from "../ui/dialog.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

const SAES = [
  ["SAE", "name", (one) => one.name],
  ["Weights", "figure", (one) => size(one.weights)],
  ["Features", "figure", (one) => size(one.features)],
  ["Exports", "figure", (one) => size(one.exports)],
  ["Checkpoints", "figure", (one) => size(one.checkpoints)],
  ["All", "figure", (one) => size(one.bytes)],
];

/** What takes the disk, what of it could go, and the SAEs that can still be brought back. */
export function Disk() {
  const [use, setUse] = useState(null);
  const [trash, setTrash] = useState([]);
  const [cleaning, setCleaning] = useState(null);
  const [failed, setFailed] = useState("");
  const look = () => {
    get("/api/disk").then(setUse, (error) => setFailed(said(error)));
    get("/api/trash").then((found) => setTrash(found.trash), () => {});
  };
  useEffect(look, []);
  const ask = (promise) => promise.then(() => {
    setCleaning(null);
    setFailed("");
    look();
  }, (error) => setFailed(said(error)));
  if (!use) return failed ? html`<p class="refusal" role="alert">${failed}</p>` : html`<p class="empty">Adding up what takes the disk.</p>`;
  const groups = [
    ["What", "name", (one) => one.what],
    ["Size", "figure", (one) => size(one.bytes)],
    ["Things", "figure", (one) => count(one.things)],
    ["What is lost", "text", (one) => one.lost],
    ["", "verbs", (one) => html`<button class="quiet" aria-label=${`Delete ${one.what}`} onClick=${() => setCleaning(one)}>Delete</button>`],
  ];
  const trashed = [
    ["SAE", "name", (one) => one.name],
    ["Removed", "made", (one) => ago(one.removed_at, slowClock.value)],
    ["Labels", "figure", (one) => count(one.labels)],
    ["", "verbs", (one) => html`<button aria-label=${`Restore ${one.name}`} onClick=${() => ask(post(`/api/trash/${one.id}/restore`, {}))}>Restore</button>`],
  ];
  return html`<section aria-labelledby="disk"><h3 id="disk">Disk <span class="number">${size(use.bytes)} in all, ${size(use.free_bytes)} free</span></h3>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${use.saes.length > 0 && html`<${Table} label="Disk by SAE" columns=${SAES} rows=${use.saes} />`}
    ${use.clean.length > 0 && html`<h3>Could go</h3><${Table} label="What could go" columns=${groups} rows=${use.clean} of=${(one) => one.what} />`}
    ${trash.length > 0 && html`<h3>Trash, kept for 7 days</h3><${Table} label="Trash" columns=${trashed} rows=${trash} of=${(one) => one.id} />`}
    ${cleaning && html`<${Sure} title=${`Delete ${cleaning.what}, ${size(cleaning.bytes)}?`} verb="Delete" loses=${`What is lost: ${cleaning.lost}.`}
      failed=${failed} onClose=${() => setCleaning(null)} onYes=${() => ask(post("/api/clean", { what: [cleaning.what], dry_run: false }))} />`}
  </section>`;
}
