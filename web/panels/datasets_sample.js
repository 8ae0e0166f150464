import { useState } from "preact/hooks";
import { get, said } from "../api.js";
import { characters, count } from "../lib/format.js";
import { show } from "../route.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";

const ROWS = 10; // of a page
const CHARS = 500; // of a document that is folded
const LINES = 7; // of them
const WHOLE = 20_000; // as much of one as the studio shows

/** Documents of a dataset: some from all over it, or one after the other from a row on, which the address keeps. */
export function Sample({ dataset, from }) {
  const offset = from === undefined ? null : Math.max(Math.trunc(Number(from)) || 0, 0);
  const where = offset === null ? "" : `&offset=${offset}`;
  const { found, failed, again } = useLoaded(`/api/datasets/${dataset.id}/sample?rows=${ROWS}&chars=${CHARS}${where}`, "");
  const total = found?.total ?? 0;
  const at = (row) => show({ row });
  const somewhere = () => at(Math.floor(Math.random() * Math.max(total - ROWS, 1)));
  return html`<section class="sample" aria-labelledby="sample">
    <header>
      <h3 id="sample">Documents</h3>
      <div class="verbs">
        <button aria-pressed=${offset === null} onClick=${() => at(null)}>From all over</button>
        <button disabled=${total <= ROWS} onClick=${somewhere}>Somewhere</button>
        <button disabled=${!offset} onClick=${() => at(Math.max(offset - ROWS, 0))}>Previous</button>
        <button disabled=${offset !== null && offset + ROWS >= total} onClick=${() => at(offset === null ? 0 : offset + ROWS)}>${offset === null ? "One by one" : "Next"}</button>
        <label class="goto">Row <input type="number" min="0" max=${Math.max(total - 1, 0)} value=${offset ?? ""} onChange=${({ target }) => target.value !== "" && at(Number(target.value))} /></label>
      </div>
    </header>
    ${failed && html`<div class="empty"><p class="refusal" role="alert">${failed}</p><button onClick=${again}>Try again</button></div>`}
    ${!found && !failed && html`<p class="empty late">Reading documents…</p>`}
    ${found && html`<p class="help" aria-live="polite">${told(offset, found)}</p>
      <ol class="documents">${found.rows.map((row) => html`<${Row} key=${row.row} row=${row} dataset=${dataset} />`)}</ol>`}
  </section>`;
}

function told(offset, { rows, total }) {
  if (offset === null) return `${count(rows.length)} of ${count(total)}, at even distances`;
  if (!rows.length) return `There is no row ${count(offset)}: the last is ${count(total - 1)}.`;
  return `Rows ${count(offset)} to ${count(offset + rows.length - 1)} of ${count(total)}; the first is 0`;
}

/** A document, or a part of a long one; of much text its beginning, until more is asked for. */
function Row({ row, dataset }) {
  const [whole, setWhole] = useState(null);
  const [failed, setFailed] = useState("");
  const had = characters(row.text);
  const { characters: all = had } = row;
  const unfold = async () => {
    if (had === all) return setWhole(row.text);
    try {
      const { rows } = await get(`/api/datasets/${dataset.id}/sample?rows=1&offset=${row.row}&chars=${WHOLE}`);
      setWhole(rows[0].text);
      setFailed("");
    } catch (error) {
      setFailed(said(error));
    }
  };
  const text = whole ?? row.text.split("\n").slice(0, LINES).join("\n");
  const isCut = characters(text) < all;
  const marks = [row.name, row.held_out && "held out", row.continues && "goes on from the row before", `${count(all)} characters`];
  return html`<li class="document" aria-label=${`Row ${row.row}`}>
    <p class="details"><b>${count(row.row)}</b> ${marks.filter(Boolean).map((mark) => html`<span>${mark}</span>`)}</p>
    <div class="text" dir="auto">${text}${isCut && "…"}</div>
    ${(whole !== null || isCut) && html`<button class="quiet" aria-expanded=${whole !== null} onClick=${whole === null ? unfold : () => setWhole(null)}>
      ${whole !== null ? "Show less" : all > WHOLE ? `Show the first ${count(WHOLE)} characters` : "Show all of it"}</button>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
  </li>`;
}
