import { useState } from "preact/hooks";
import { patch, post, submit } from "../api.js";
import { ago, count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { go } from "../route.js";
import { slowClock } from "../state.js";
import { Form, said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { withInterval } from "./compared.js";

const FORMATS = [
  ["saelens", "SAELens"],
  ["sparsify", "sparsify"],
  ["dictionary_learning", "dictionary_learning"],
  ["gemma_scope_npz", "Gemma Scope (npz)"],
  ["neuronpedia", "Neuronpedia"],
  ["zip", "SAELens, as one zip file"],
];
const REPO = { name: "repo", label: "Repository", placeholder: "owner/name", needed: true, help: "on the Hub; made when it is missing" };

/** One SAE: what it is worth, where it comes from, whether it is what its files say, and where it can go. */
export function Sae({ sae }) {
  const [open, setOpen] = useState(null);
  const [told, setTold] = useState("");
  const queue = (spec, what) => submit(spec).then((job) => setTold(`Job ${job.id} ${what}.`));
  const run = (spec, what) => queue(spec, what).catch((error) => setTold(said(error)));
  const close = () => setOpen(null);
  const facts = [
    ["Model", sae.model?.name], ["Hook", sae.hook], ["Architecture", sae.architecture], ["Width", count(sae.width)], ["k", count(sae.k)],
    ["FVU", number(sae.fvu)], ["L0", number(sae.l0, 1)], ["Alive", share(sae.alive)], ["ΔCE, nats", number(sae.ce_delta)],
  ];
  const way = html`<a href=${place("saes")}>All SAEs</a>
    <a class="button" href=${place("features", [sae.name])}>Features</a> <a class="button first" href=${place("steering", [sae.name])}>Steer</a>`;
  return html`<${Panel} title=${sae.name} verbs=${way}>
    <dl class="facts card">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value ?? "—"}</dd></div>`)}</dl>
    ${Array.isArray(sae.verdict) && html`<div class="card">${sae.verdict.map((one) => html`<p key=${one}>${one}</p>`)}</div>`}
    <p class="verbs">
      <button onClick=${() => run({ kind: "evaluate", sae: sae.name }, "evaluates it")}>Evaluate</button>
      <button onClick=${() => run({ kind: "certify", sae: sae.name }, "certifies it")}>Certify</button>
      <button onClick=${() => setOpen("export")}>Export</button>
      <button onClick=${() => setOpen("push")}>Push to the Hub</button>
      <button onClick=${() => setOpen("upload")}>Put on Neuronpedia</button>
      <button onClick=${() => setOpen("rename")}>Rename</button>
      <button onClick=${() => setOpen("note")}>Note and tags</button>
      <span role="status">${told}</span></p>
    ${(sae.note || sae.tags?.length > 0) && html`<p class="card">${sae.tags?.length > 0 && html`<b>${sae.tags.join(", ")}</b> `}${sae.note}</p>`}
    <${Evaluation} of=${sae.evaluation} />
    <${Certificate} of=${sae.certificate} />
    <${Imported} of=${sae.imported} />
    ${open === "export" && html`<${Form} title=${`Export ${sae.name}`} verb="Export" onClose=${close} start=${{ format: "saelens", labels: true }}
      fields=${[{ name: "format", label: "Format", kind: "choice", choices: FORMATS }, { name: "labels", label: "With labels", kind: "switch" }]}
      send=${(values) => queue({ kind: "export", sae: sae.name, ...values }, "writes it; its result says where it lies")} />`}
    ${open === "push" && html`<${Form} title=${`Push ${sae.name} to the Hub`} verb="Push" onClose=${close}
      fields=${[REPO, { name: "path", label: "Folder in it", help: "its top when left empty" }, { name: "private", label: "Private", kind: "switch" },
        { name: "dry_run", label: "Only say what would be uploaded", kind: "switch" }]}
      send=${(values) => queue({ kind: "push", sae: sae.name, ...values }, "publishes it")} />`}
    ${open === "upload" && html`<${Form} title=${`Put ${sae.name} on Neuronpedia`} verb="Upload" onClose=${close} start=${{ labels: true }}
      fields=${[{ name: "model_id", label: "Model there", help: "by its name when left empty" }, { name: "set", label: "Set of sources there", help: "made of hook and SAE when left empty" },
        { name: "labels", label: "With labels", kind: "switch" }]}
      send=${(values) => queue({ kind: "upload", sae: sae.name, ...values }, "uploads its features")} />`}
    ${open === "rename" && html`<${Form} title=${`Rename ${sae.name}`} verb="Rename" onClose=${close} start=${{ name: sae.name }}
      fields=${[{ name: "name", label: "New name", needed: true, help: "its features, labels and exports go along" }]}
      send=${({ name }) => post(`/api/saes/${sae.id}/rename`, { name }).then((made) => go("saes", [made.name]))} />`}
    ${open === "note" && html`<${Form} title=${`About ${sae.name}`} verb="Keep" onClose=${close} start=${{ note: sae.note ?? "", tags: (sae.tags ?? []).join(", ") }}
      fields=${[{ name: "tags", label: "Tags", help: "words, with commas between" }, { name: "note", label: "Note" }]}
      send=${({ note = null, tags = "" }) => patch(`/api/saes/${sae.id}`, { note, ...tagged(sae.tags ?? [], tags) })} />`}
  </${Panel}>`;
}

/** What to add and what to take away, that the tags be those of a text. */
function tagged(before, text) {
  const now = text.split(",").map((one) => one.trim()).filter(Boolean);
  return { add_tags: now.filter((one) => !before.includes(one)), remove_tags: before.filter((one) => !now.includes(one)) };
}

const SHORT = [["FVU", "fvu", number], ["L0", "l0", (x) => number(x, 1)], ["ΔCE, nats", "ce_delta", number], ["Recovered", "ce_recovered_mean", share], ["Alive", "alive", share]];

function Evaluation({ of }) {
  if (!of) return null;
  return html`<section aria-labelledby="evaluation"><h3 id="evaluation">Evaluation</h3><div class="card">
    <p class="details">on ${count(of.tokens)} held-out tokens of ${of.tokenization}, ${ago(of.at, slowClock.value)}; beside a figure its interval of 95 %</p>
    <dl class="facts">${SHORT.map(([title, name, show]) => html`<div key=${name}><dt>${title}</dt><dd>${withInterval(of.figures?.[name], show)}</dd></div>`)}</dl>
    ${(of.verdict ?? []).map((one) => html`<p key=${one}>${one}</p>`)}</div></section>`;
}

function Certificate({ of }) {
  if (!of) return null;
  return html`<section aria-labelledby="certificate"><h3 id="certificate">Certificate</h3><div class="card">
    <p class="details">on ${count(of.tokens)} tokens of ${of.tokenization}, ${ago(of.at, slowClock.value)}</p>
    ${(of.verdict ?? []).map((one) => html`<p key=${one}>${one}</p>`)}</div></section>`;
}

function Imported({ of }) {
  if (!of) return null;
  return html`<section aria-labelledby="imported"><h3 id="imported">Where it comes from</h3><div class="card">
    <p><code>${of.source}</code> ${[of.format, of.licence && `licence ${of.licence}`].filter(Boolean).join(" · ")}</p>
    ${(of.notes ?? []).map((one) => html`<p class="details" key=${one}>${one}</p>`)}</div></section>`;
}
