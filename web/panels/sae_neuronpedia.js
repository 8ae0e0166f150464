import { useRef, useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { count, size } from "../lib/format.js";
import { isEnded } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { Dialog } from "../ui/dialog.js";
import { Following, useJob } from "../ui/followed.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Secret } from "../ui/secret.js";

const FIELDS = [
  { name: "labels", label: "With labels", kind: "switch", help: "what its features are called goes along" },
  { name: "check", label: "Check it first", kind: "switch", help: "writes the export and holds it line by line to what Neuronpedia imports" },
  { name: "model_id", label: "Model there", folded: true, help: "by its name when left empty" },
  { name: "set", label: "Set of sources there", folded: true, help: "made of hook and SAE when left empty" },
  { name: "description", label: "Description of the set", folded: true, help: "where it is made" },
];

/** Put the features of an SAE on Neuronpedia: checked first, then sent. */
export function Neuronpedia({ sae, onClose }) {
  const [values, setValues] = useState({ labels: true, check: true });
  const [jobs, setJobs] = useState({ check: null, upload: null });
  const sent = useRef(false);
  const upload = async ({ check: _, ...given }) => {
    const job = await submit({ kind: "upload", sae: sae.name, ...given });
    setJobs((was) => ({ ...was, upload: job.id }));
  };
  const send = async (given) => {
    setValues(given);
    if (given.check) {
      const job = await submit({ kind: "export", sae: sae.name, format: "neuronpedia", labels: given.labels });
      setJobs({ check: job.id, upload: null });
    } else await upload(given);
    sent.current = true;
  };
  if (jobs.check !== null || jobs.upload !== null) return html`<${Going} sae=${sae} jobs=${jobs} upload=${() => upload(values)} onClose=${onClose}
    back=${() => setJobs({ check: null, upload: null })} />`;
  const close = () => (sent.current ? (sent.current = false) : onClose());
  return html`<${Form} title=${`Put ${sae.name} on Neuronpedia`} verb="Go on" fields=${FIELDS} start=${values} send=${send} onClose=${close}>
    <p class="help">Its newest features that are alive, 128 in a request; what is cut goes on when the job is retried.</p></${Form}>`;
}

function Going({ sae, jobs, upload, back, onClose }) {
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  const [check, sent] = [useJob(jobs.check), useJob(jobs.upload)];
  const job = jobs.upload === null ? check : sent;
  const ended = job && isEnded(job);
  const result = job?.state === "done" ? job.result : null;
  const send = () => {
    setBusy(true);
    upload().then(() => setFailed(""), (error) => setFailed(said(error))).finally(() => setBusy(false));
  };
  return html`<${Dialog} title=${`Put ${sae.name} on Neuronpedia`} onClose=${onClose}><div class="steps">
    <${Following} job=${job}>${jobs.upload === null ? "It is written and checked; nothing is sent yet." : "It is sent. Closing this does not stop it."}</${Following}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${ended && !result && html`<${Broken} job=${job} sae=${sae} send=${send} busy=${busy} isUpload=${jobs.upload !== null} />`}
    ${result && jobs.upload === null && html`${result.notes.map((one) => html`<p key=${one}>${one}</p>`)}<p class="details">${count(result.files.length)} files, ${size(result.bytes)}, below Exports</p>`}
    ${result && jobs.upload !== null && html`<p role="status"><b>It is at <a href=${result.url} target="_blank" rel="noopener">${result.url}</a>.</b></p>
      <p>${count(result.features)} features and ${count(result.labels)} labels in ${count(result.requests)} requests; ${count(result.dead)} dead features have no place there.</p>`}
    <footer class="verbs">
      ${ended && jobs.upload === null && html`<button type="button" disabled=${busy} onClick=${back}>Back</button>`}
      ${result && jobs.upload === null ? html`<button type="button" class="first" disabled=${busy} onClick=${send}>Upload</button>` : html`<button type="button" data-first onClick=${onClose}>Close</button>`}
    </footer></div></${Dialog}>`;
}

/** Why it did not go, with what can be done about it in place. */
function Broken({ job, sae, send, busy, isUpload }) {
  const message = job.error?.message ?? `the job is ${job.state}`;
  return html`<p class="refusal" role="alert">${message}</p>
    ${/\bkey\b/.test(message) && html`<p class="help">Make a key on your account’s page there. It is kept on the studio’s machine and never shown.</p>
      <${Secret} name="neuronpedia" label="Key of Neuronpedia" kept=${send} />`}
    ${/extract/.test(message) && html`<p><a href=${place("features", [sae.name])}>Extract its features</a></p>`}
    ${isUpload && html`<p class="verbs"><button type="button" disabled=${busy} onClick=${send}>Try again</button></p>`}`;
}
