import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { isBad, isEnded, isLive } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { isAbout } from "../lib/saes.js";
import { jobs, take } from "../state.js";
import { html } from "../ui/html.js";
import { EndedJob, LiveJob, WaitingJob } from "../ui/job.js";
import { Panel } from "../ui/panel.js";
import { About, Rename } from "./sae_about.js";
import { Certificate } from "./sae_certificate.js";
import { CompareSaes } from "./sae_compare.js";
import { DeleteSae } from "./sae_delete.js";
import { Evaluation } from "./sae_evaluation.js";
import { ExportSae } from "./sae_export.js";
import { Exports } from "./sae_exports.js";
import { Facts } from "./sae_facts.js";
import { OwnFiles } from "./sae_files.js";
import { From } from "./sae_from.js";
import { ImportLabels } from "./sae_labels.js";
import { Neuronpedia } from "./sae_neuronpedia.js";
import { Push } from "./sae_push.js";

const DIALOGS = { export: ExportSae, push: Push, neuronpedia: Neuronpedia, labels: ImportLabels, rename: Rename, delete: DeleteSae };

/** One SAE: what it is worth, whether it is what its files say, where it comes from, and where it can go. */
export function Sae({ sae }) {
  const [open, setOpen] = useState(null);
  const Opened = DIALOGS[open];
  useEffect(() => {
    get(`/api/saes/${sae.id}`).then((found) => take([["artifact", { noun: "sae", ...found }]]), () => {}); // whether its files were changed is told of nobody
  }, [sae.id]);
  const way = html`<a href=${place("saes")}>All SAEs</a>
    <a class="button" href=${place("features", [sae.name])}>Features</a> <a class="button first" href=${place("steering", [sae.name])}>Steer</a>`;
  const verb = (of, words, kind) => html`<button class=${kind} onClick=${() => setOpen(of)}>${words}</button>`;
  return html`<${Panel} title=${sae.name} verbs=${way}>
    <${Facts} sae=${sae} />
    <${About} sae=${sae} />
    <p class="verbs">${verb("export", "Export")} ${verb("push", "Push to the Hub")} ${verb("neuronpedia", "Put on Neuronpedia")} ${verb("labels", "Take in labels")}
      ${verb("compare", "Compare with another")} ${verb("rename", "Rename")} ${verb("delete", "Delete", "bad")}</p>
    <${AtWork} sae=${sae} />
    <${Evaluation} sae=${sae} />
    <${Certificate} sae=${sae} />
    <${Exports} sae=${sae} onExport=${() => setOpen("export")} />
    <${From} sae=${sae} />
    <${OwnFiles} sae=${sae} />
    ${Opened && html`<${Opened} sae=${sae} onClose=${() => setOpen(null)} />`}
    ${open === "compare" && html`<${CompareSaes} saes=${[sae.name]} onClose=${() => setOpen(null)} />`}
  </${Panel}>`;
}

/** What is at work on it; and of each kind the last that failed, where nothing of the kind has come to its end since. */
function AtWork({ sae }) {
  const about = [...jobs.value.values()].filter((job) => isAbout(job, sae.name)).sort((a, b) => b.id - a.id);
  const live = about.filter(isLive);
  const waiting = about.filter((job) => !isLive(job) && !isEnded(job));
  const newest = new Map(about.filter((job) => isEnded(job) && !job.spec.dry_run).reverse().map((job) => [job.kind, job]));
  const failed = [...newest.values()].filter((job) => isBad(job) && !about.some((other) => other.id > job.id && other.kind === job.kind));
  if (!live.length && !waiting.length && !failed.length) return null;
  return html`<section aria-label="At work on it">
    ${live.map((job) => html`<${LiveJob} job=${job} key=${job.id} />`)}
    ${waiting.length > 0 && html`<ul class="rows waiting">${waiting.map((job) => html`<${WaitingJob} job=${job} key=${job.id} />`)}</ul>`}
    ${failed.length > 0 && html`<ul class="rows">${failed.map((job) => html`<${EndedJob} job=${job} key=${job.id} />`)}</ul>`}
  </section>`;
}
