import { useRef, useState } from "preact/hooks";
import { post, said } from "../api.js";
import { count } from "../lib/format.js";
import { labelsOf, unfit } from "../lib/label_files.js";
import { Dialog } from "../ui/dialog.js";
import { html } from "../ui/html.js";

const AT_ONCE = 1000; // labels of a request
const NOTHING = { labels: [], skipped: 0, files: 0, failed: "" };

/** Take in labels out of files: of this studio's exports, or of Neuronpedia's. What a person has said here stays. */
export function ImportLabels({ sae, onClose }) {
  const [read, setRead] = useState(NOTHING);
  const newest = useRef(null); // of the choices that were made: a long file may be read after a short one
  const [taken, setTaken] = useState(null);
  const [busy, setBusy] = useState(false);
  const choose = async ({ target }) => {
    const files = (newest.current = [...target.files]);
    setTaken(null);
    setRead(NOTHING);
    const found = await labelsIn(files, sae.width);
    if (newest.current === files) setRead(found);
  };
  const take = async () => {
    setBusy(true);
    setRead({ ...read, failed: "" });
    try {
      const found = { imported: 0, known: 0 };
      for (let at = 0; at < read.labels.length; at += AT_ONCE) {
        const answer = await post(`/api/saes/${sae.id}/labels/import`, { labels: read.labels.slice(at, at + AT_ONCE) });
        found.imported += answer.imported;
        found.known += answer.known;
      }
      setTaken(found);
    } catch (error) {
      setRead({ ...read, failed: said(error) });
    }
    setBusy(false);
  };
  return html`<${Dialog} title=${`Take in labels for ${sae.name}`} onClose=${onClose}><div class="steps">
    <div class="field"><label for="label-files">Files</label><input id="label-files" type="file" multiple accept=".jsonl,.json,.gz" disabled=${busy} onChange=${choose} />
      <p class="help">what “Download labels” or mistudio label export writes, a feature_labels.json, or the batch files of an explanations folder of Neuronpedia’s; what a person has said here is never replaced</p></div>
    ${read.failed && html`<p class="refusal" role="alert">${read.failed}</p>`}
    ${read.files > 0 && html`<p>${count(read.labels.length)} ${read.labels.length === 1 ? "label" : "labels"} in ${count(read.files)} ${read.files === 1 ? "file" : "files"}${read.skipped ? `, ${count(read.skipped)} without a text left out` : ""}.</p>`}
    ${taken && html`<p role="status"><b>${count(taken.imported)} were new, ${count(taken.known)} known.</b></p>`}
    <footer class="verbs"><button type="button" onClick=${onClose}>${taken ? "Close" : "Cancel"}</button>
      ${!taken && html`<button type="button" class="first" disabled=${!read.labels.length || busy} onClick=${take}>${busy ? "Taking in…" : "Take in"}</button>`}</footer></div>
  </${Dialog}>`;
}

async function labelsIn(files, width) {
  const all = { ...NOTHING, files: files.length };
  for (const file of files) {
    try {
      const { labels, skipped } = labelsOf(await textOf(file));
      const why = unfit(labels, width);
      if (why) return { ...NOTHING, failed: `${file.name}: ${why}` };
      all.labels = all.labels.concat(labels); // more than there may be arguments
      all.skipped += skipped;
    } catch (error) {
      return { ...NOTHING, failed: `${file.name}: ${error.message}` };
    }
  }
  return all;
}

function textOf(file) {
  if (!file.name.endsWith(".gz")) return file.text();
  return new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
