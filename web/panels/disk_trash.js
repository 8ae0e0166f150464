import { useState } from "preact/hooks";
import { post, remove, said } from "../api.js";
import { ago, count } from "../lib/format.js";
import { slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Sure } from "../ui/dialog.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

/** The SAEs that were removed and can be brought back; asked anew when the disk has been looked at. */
export function Trash({ use, changed }) {
  const { found } = useLoaded("/api/trash", use);
  const [renamed, setRenamed] = useState(null); // its old name is taken
  const [sure, setSure] = useState(null); // what is to be deleted: one of them, or "all"
  const [failed, setFailed] = useState("");
  const done = () => {
    [setRenamed, setSure].forEach((set) => set(null));
    setFailed("");
    changed();
  };
  const restore = async (one) => {
    try {
      await post(`/api/trash/${one.id}/restore`, {});
      done();
    } catch (error) {
      if (error.status === 409) setRenamed({ one, why: said(error) });
      else setFailed(said(error));
    }
  };
  const trash = found?.trash ?? [];
  if (!trash.length) return null;
  const columns = [
    ["SAE", "name", (one) => one.name],
    ["Removed", "made", (one) => ago(one.removed_at, slowClock.value)],
    ["Labels", "figure", (one) => count(one.labels)],
    ["", "verbs", (one) => html`<button aria-label=${`Restore ${one.name}`} onClick=${() => restore(one)}>Restore</button>
      <button class="quiet" aria-label=${`Delete ${one.name} for good`} onClick=${() => setSure(one)}>Delete</button>`],
  ];
  const delete_ = () => remove(sure === "all" ? "/api/trash" : `/api/trash/${sure.id}`).then(done, (error) => setFailed(said(error)));
  const names = trash.map(({ name }) => name).join(", ");
  return html`<h3>Trash, kept for 7 days</h3>
    ${failed && !sure && html`<p class="refusal" role="alert">${failed}</p>`}
    <${Table} label="Trash" columns=${columns} rows=${trash} of=${(one) => one.id} />
    <p class="verbs"><button onClick=${() => setSure("all")}>Empty the trash</button></p>
    ${renamed && html`<${Form} title=${`Restore ${renamed.one.name}`} verb="Restore" onClose=${() => setRenamed(null)}
      fields=${[{ name: "name", label: "What to call it", help: renamed.why, needed: true }]} start=${{ name: `${renamed.one.name}-restored` }}
      send=${(values) => post(`/api/trash/${renamed.one.id}/restore`, values).then(done)} />`}
    ${sure && html`<${Sure} title=${sure === "all" ? "Empty the trash?" : `Delete ${sure.name} for good?`} verb="Delete" failed=${failed} onYes=${delete_}
      onClose=${() => setSure(null) ?? setFailed("")} loses=${sure === "all" ? `${names}: none of them can be brought back.` : `Its weights and features, and ${count(sure.labels)} labels. It cannot be brought back.`} />`}`;
}
