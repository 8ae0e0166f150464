import { useRef, useState } from "preact/hooks";
import { submit } from "../api.js";
import { isEnded } from "../lib/jobs.js";
import { FORMATS, lacks } from "../lib/layouts.js";
import { useLoaded } from "../ui/asked.js";
import { Dialog } from "../ui/dialog.js";
import { useJob, Following } from "../ui/followed.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Content } from "./sae_exports.js";

/** Write an SAE for another library: in which format, and then what came of it. */
export function ExportSae({ sae, onClose }) {
  const [asked, setAsked] = useState(null); // the job, and what was asked of it
  const sent = useRef(false);
  const config = useLoaded(`/api/saes/${sae.id}/files/cfg.json`).found;
  const depends = useLoaded(`/api/saes/${sae.id}/dependents`).found;
  const why = Object.fromEntries(FORMATS.map(([of]) => [of, lacks(of, config, depends?.extractions)]));
  const possible = (format) => (why[format] ? FORMATS.find(([of]) => !why[of])?.[0] : format);
  if (asked) return html`<${Exported} sae=${sae} id=${asked.job} again=${() => setAsked(null)} onClose=${onClose} />`;
  const send = async (values) => {
    const job = await submit({ kind: "export", sae: sae.name, ...values, format: possible(values.format) });
    sent.current = true;
    setAsked({ job: job.id });
  };
  const close = () => (sent.current ? (sent.current = false) : onClose());
  return html`<${Form} title=${`Export ${sae.name}`} verb="Export" onClose=${close} start=${{ format: "saelens", labels: true }} send=${send}
      fields=${[{ name: "labels", label: "With labels", kind: "switch", help: "what its features are called goes along, but with SAEDashboard" }]}>
    ${({ format }, set) => html`<fieldset class="formats"><legend>Format</legend>${FORMATS.map(([of, name, what]) => {
      return html`<label key=${of} class=${why[of] ? "off" : ""}><input type="radio" name="format" value=${of} checked=${of === possible(format)} disabled=${why[of] !== null} onChange=${() => set({ format: of })} />
        <span><b>${name}</b> <span class="details">${why[of] ? `Not for this SAE: ${why[of]}.` : what}</span></span></label>`;
    })}</fieldset>`}
  </${Form}>`;
}

function Exported({ sae, id, again, onClose }) {
  const job = useJob(id);
  const done = job?.state === "done" && job.result;
  return html`<${Dialog} title=${`Export ${sae.name}`} onClose=${onClose}><div class="steps">
    <${Following} job=${job}>It goes on when this is closed; what is written stands below Exports.</${Following}>
    ${job && isEnded(job) && !done && html`<p class="refusal" role="alert">${job.error?.message ?? `The job is ${job.state}.`}</p>`}
    ${done && html`${done.notes.map((one) => html`<p key=${one}>${one}</p>`)}<${Content} name=${done.export} path=${done.path} state=${job.id} />`}
    <footer class="verbs">${job && isEnded(job) && html`<button type="button" onClick=${again}>Another format</button>`}
      <button type="button" class="first" data-first onClick=${onClose}>Close</button></footer></div>
  </${Dialog}>`;
}
