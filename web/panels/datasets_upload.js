import { useState } from "preact/hooks";
import { html } from "../ui/html.js";
import { Sending, useSending } from "../ui/sending.js";

const ENDINGS = ".txt,.md,.py,.jsonl,.json,.csv,.parquet,.arrow,.gz,.zst";

/**
 * Files of this browser, sent to the studio. `onSent`: told the source "upload:<id>" and the first file's name when all
 * have come, and two empty texts when they are taken back.
 */
export function Upload({ wrong, taken, onSent }) {
  const [over, setOver] = useState(false);
  const sending = useSending({ called: nameOf, taken, onSent: (source, files) => onSent(source, source && files[0].name) });
  const chosen = (list) => sending.begin([...new Map([...list].map((file) => [file.name, file])).values()]);
  if (sending.news) return html`<${Sending} sending=${sending} label="Upload" wrong=${wrong} />`;
  const dropped = (event) => {
    event.preventDefault();
    setOver(false);
    chosen(event.dataTransfer.files);
  };
  return html`<div class="field">
    <label for="files">Files</label>
    <div class=${over ? "drop over" : "drop"} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${dropped}>
      <input id="files" type="file" multiple accept=${ENDINGS} aria-describedby="files-help" onChange=${(event) => chosen(event.target.files)} />
      <span class="help">or drop them here</span>
    </div>
    <p class="help" id="files-help">.txt, .md, .py, .jsonl, .json, .csv, .parquet or .arrow, also as .gz or .zst. They go to the studio and nowhere else.</p>
  </div>`;
}

const nameOf = (files) => (files.length === 1 ? files[0].name : `${files[0].name} and ${files.length - 1} more`);
