import { useEffect, useState } from "preact/hooks";
import { get, post, said } from "../api.js";
import { count, known } from "../lib/format.js";
import { html } from "../ui/html.js";

const day = (iso) => new Date(iso).toLocaleDateString("en-GB", { day: "numeric", month: "long" });

/** SAEs that were removed and can still be brought back. `count`: of those that there are, by which it looks again. */
export function Trash({ count: there }) {
  const [trash, setTrash] = useState([]);
  const [failed, setFailed] = useState("");
  const look = () => get("/api/trash").then((found) => setTrash(found.trash), () => {}); // the banner says when the studio is away
  useEffect(() => {
    look();
  }, [there]);
  const restore = (one) => post(`/api/trash/${one.id}/restore`, {}).then(() => setFailed("") ?? look(), (error) => setFailed(said(error)));
  if (!trash.length) return null;
  return html`<details class="trash"><summary>Trash: ${count(trash.length)} removed ${trash.length > 1 ? "SAEs" : "SAE"}</summary>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    <ul class="rows">${trash.map((one) => html`<li class="finding" key=${one.id}>
      <b>${one.name}</b> <span class="details">kept until ${day(one.deleted_at)}${known(one.labels) && one.labels > 0 ? `, with ${count(one.labels)} labels` : ""}</span>
      <button class="quiet" aria-label=${`Restore ${one.name}`} onClick=${() => restore(one)}>Restore</button></li>`)}</ul>
  </details>`;
}
