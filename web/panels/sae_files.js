import { count, size } from "../lib/format.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";

/** Files with their sizes, each to be taken away. `at`: the API's path of their list, which `list` is the answer of. */
export function Files({ at, list: { found, failed }, label }) {
  if (failed) return html`<p class="refusal" role="alert">${failed}</p>`;
  if (!found) return html`<p class="details late">Reading the files.</p>`;
  const { files } = found;
  const place = (name) => `${at}/${name.split("/").map(encodeURIComponent).join("/")}`;
  return html`<ul class="files" aria-label=${label}>${files.map((one) => html`<li key=${one.name}>
      <a href=${place(one.name)} download>${one.name}</a> <span class="figure">${size(one.bytes)}</span> <code title="sha256 of its content">${one.sha256.slice(0, 12)}</code></li>`)}</ul>
    <p class="details">${count(files.length)} ${files.length === 1 ? "file" : "files"}, ${size(files.reduce((sum, { bytes }) => sum + bytes, 0))}</p>`;
}

/** The files of an SAE itself: a folder that SAELens loads as it lies. */
export function OwnFiles({ sae }) {
  const at = `/api/saes/${sae.id}/files`;
  const list = useLoaded(at, [sae.certificate?.at, sae.evaluation?.at, sae.note, sae.tags?.join(" ")].join());
  return html`<section aria-labelledby="files"><h3 id="files">Files</h3><div class="card">
    <p class="details">in <code>${sae.folder}</code> of the studio’s machine; SAELens loads this folder as it lies</p>
    <${Files} at=${at} list=${list} label=${`Files of ${sae.name}`} /></div></section>`;
}
