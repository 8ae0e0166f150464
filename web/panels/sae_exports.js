import { useState } from "preact/hooks";
import { remove, said } from "../api.js";
import { ago, size } from "../lib/format.js";
import { FORMAT_NAMES } from "../lib/layouts.js";
import { jobs, slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Sure } from "../ui/dialog.js";
import { html } from "../ui/html.js";
import { Empty } from "../ui/panel.js";
import { ReadCard } from "../ui/card.js";
import { useText } from "./sae_text.js";
import { Files } from "./sae_files.js";

const CARD = "README.md"; // which the formats of weights have

/** What of an SAE is written for others: where it lies, its files, and how it is loaded there. */
export function Exports({ sae, onExport }) {
  const written = [...jobs.value.values()].filter((job) => job.kind === "export" && job.ended_at).length;
  const { found, failed, again } = useLoaded("/api/exports", `${written} ${sae.name}`);
  const own = (found?.exports ?? []).filter((one) => one.sae === sae.name);
  const verb = html`<button onClick=${onExport}>Export</button>`;
  return html`<section aria-labelledby="exports"><div class="heading"><h3 id="exports">Exports</h3>${own.length > 0 && verb}</div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${found && !own.length && html`<${Empty} verb=${verb} line=${`mistudio sae export ${sae.name} --to FOLDER`}>It has not been written for another library yet.</${Empty}>`}
    ${own.length > 0 && html`<ul class="rows">${own.map((one) => html`<${Written} key=${one.name} one=${one} path=${pathOf(one)} gone=${again} />`)}</ul>`}
  </section>`;
}

/** Where an export lies, as the job that wrote it says; null when it is not known any more. */
function pathOf({ name }) {
  const job = [...jobs.value.values()].filter((one) => one.kind === "export" && one.result?.export === name).at(-1);
  return job?.result.path ?? null;
}

function Written({ one, path, gone }) {
  const [open, setOpen] = useState(false);
  const [asked, setAsked] = useState(false);
  const [failed, setFailed] = useState(null);
  const yes = () => remove(`/api/exports/${one.name}`).then(() => setAsked(false) ?? gone(), (error) => setFailed(said(error)));
  const close = () => setAsked(false) ?? setFailed(null);
  return html`<li class="finding export"><details onToggle=${(event) => setOpen(event.target.open)}><summary>${FORMAT_NAMES[one.format] ?? one.format} <span class="details">${size(one.bytes)}, written ${ago(one.written_at, slowClock.value)}</span></summary>
      ${open && html`<${Content} name=${one.name} path=${path} state=${one.written_at} />`}</details>
    <button class="quiet" aria-label=${`Delete the export ${one.name}`} onClick=${() => setAsked(true)}>Delete</button>
    ${asked && html`<${Sure} title=${`Delete the export ${one.name}?`} verb="Delete export" loses=${`Its ${size(one.bytes)} of files go; the SAE stays, and can be exported again.`}
      failed=${failed} onYes=${yes} onClose=${close} />`}</li>`;
}

/** The files of an export, where they lie, and the part of its card that says how it is loaded. */
export function Content({ name, path, state }) {
  const at = `/api/exports/${name}/files`;
  const list = useLoaded(at, state);
  const hasCard = list.found?.files.some((one) => one.name === CARD);
  const card = useText(hasCard ? `${at}/${CARD}` : null, state);
  return html`${path && html`<p>It lies in <code>${path}</code> of the studio’s machine.</p>`}
    <${Files} at=${at} list=${list} label=${`Files of ${name}`} />
    ${card && html`<div class="reading"><${ReadCard} text=${card} section="How to load it" /></div>`}`;
}
