import { useRef, useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { count, size } from "../lib/format.js";
import { isEnded } from "../lib/jobs.js";
import { ReadCard } from "../ui/card.js";
import { Dialog } from "../ui/dialog.js";
import { Following, useJob } from "../ui/followed.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Secret } from "../ui/secret.js";
import { Table } from "../ui/table.js";

const FIELDS = [
  { name: "repo", label: "Repository", placeholder: "owner/name", needed: true, help: "on the Hub; made when it is missing" },
  { name: "private", label: "Private", kind: "switch", help: "nobody else sees a repository that is made" },
  { name: "path", label: "Folder in it", folded: true, help: "its top when left empty" },
  { name: "message", label: "Message of the commit", folded: true },
  { name: "overwrite", label: "Replace files of another content", kind: "switch", folded: true },
];

/** Publish an SAE on the Hub: what would go is shown first, card and files; then it goes. */
export function Push({ sae, onClose }) {
  const [spec, setSpec] = useState({ private: false });
  const [jobs, setJobs] = useState({ dry: null, real: null });
  const sent = useRef(false);
  const look = async (values) => {
    const job = await submit({ kind: "push", sae: sae.name, ...values, dry_run: true });
    setSpec(values);
    setJobs({ dry: job.id, real: null });
  };
  const send = (values) => look(values).then(() => (sent.current = true));
  if (jobs.dry !== null) return html`<${Going} sae=${sae} spec=${spec} jobs=${jobs} look=${look} onClose=${onClose}
    back=${() => setJobs({ dry: null, real: null })} push=${() => submit({ kind: "push", sae: sae.name, ...spec }).then((job) => setJobs({ ...jobs, real: job.id }))} />`;
  const close = () => (sent.current ? (sent.current = false) : onClose());
  return html`<${Form} title=${`Push ${sae.name} to the Hub`} verb="Show what would go" fields=${FIELDS} start=${spec} send=${send} onClose=${close}>
    <p class="help">Its weights, its labels and its card, in one commit. Nothing goes before you have seen it.</p></${Form}>`;
}

function Going({ sae, spec, jobs, look, push, back, onClose }) {
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  const [dry, real] = [useJob(jobs.dry), useJob(jobs.real)];
  const job = jobs.real === null ? dry : real;
  const result = job?.state === "done" ? job.result : null;
  const broken = job && isEnded(job) && !result ? job : null;
  const ask = (promise) => {
    setBusy(true);
    promise.then(() => setFailed(""), (error) => setFailed(said(error))).finally(() => setBusy(false));
  };
  const again = (more) => ask(jobs.real === null || more ? look({ ...spec, ...more }) : push());
  return html`<${Dialog} title=${`Push ${sae.name} to the Hub`} onClose=${onClose}><div class="steps">
    <${Following} job=${job}>${jobs.real === null ? "Working out what would go." : `It goes to ${spec.repo}. Closing this does not stop it.`}</${Following}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${broken && html`<${Broken} job=${broken} again=${again} busy=${busy} />`}
    ${result && html`<${Shown} result=${result} />`}
    <footer class="verbs">
      ${jobs.real === null && job && isEnded(job) && html`<button type="button" disabled=${busy} onClick=${back}>Back</button>`}
      ${result?.dry_run && html`<button type="button" class="first" disabled=${busy} onClick=${() => ask(push())}>Push</button>`}
      ${!result?.dry_run && html`<button type="button" data-first onClick=${onClose}>Close</button>`}
    </footer></div></${Dialog}>`;
}

/** Why it did not go, with what can be done about it in place. */
function Broken({ job, again, busy }) {
  const { field, message } = job.error ?? { message: `the job is ${job.state}` };
  const lacksToken = field === "repo" && /\btoken\b/.test(message);
  return html`<p class="refusal" role="alert">${message}</p>
    ${lacksToken && html`<p class="help">Make a token with write access in your settings on the Hub. It is kept on the studio’s machine and never shown.</p>
      <${Secret} name="hf" label="Token of the Hub that may write" kept=${() => again()} />`}
    <p class="verbs">${field === "overwrite" && html`<button type="button" disabled=${busy} onClick=${() => again({ overwrite: true })}>Replace them</button>`}
      ${field !== "overwrite" && html`<button type="button" disabled=${busy} onClick=${() => again()}>Try again</button>`}</p>`;
}

const STATES = { new: "new", same: "there already", other: "replaces another" };
const FILES = [
  ["File", "name", (one) => one.file],
  ["Size", "figure", (one) => size(one.bytes)],
  ["There", "text", (one) => STATES[one.state] ?? one.state],
];

/** What would go, or what went. */
function Shown({ result }) {
  const { repo, url, made, private: hidden, files, sent_bytes: bytes, card, dry_run: dry, commit } = result;
  const seen = hidden ? "only those who may see it" : "everybody";
  return html`${dry
      ? html`<p>To <b>${repo}</b>, ${made ? "which would be made" : "which is there"}; ${seen} would see it. ${count(files.length)} files, ${size(bytes)} to send.</p>`
      : html`<p role="status"><b>It is at <a href=${url} target="_blank" rel="noopener">${url}</a></b>, ${made ? "made just now; " : ""}${seen} can see it. Commit <code>${commit?.slice(0, 12)}</code>.</p>`}
    <${Table} label=${dry ? "What would go" : "What went"} columns=${FILES} rows=${files} of=${(one) => one.file} />
    ${card && html`<section class="reading" aria-label="Its card"><${ReadCard} text=${card} /></section>`}`;
}
