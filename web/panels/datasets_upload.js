import { useEffect, useRef, useState } from "preact/hooks";
import { said } from "../api.js";
import { count, share, size } from "../lib/format.js";
import { Bar } from "../ui/bar.js";
import { html } from "../ui/html.js";
import { send, takeBack } from "../upload.js";

const ENDINGS = ".txt,.md,.py,.jsonl,.json,.csv,.parquet,.arrow,.gz,.zst";

/**
 * Files of this browser on their way to the studio. `onSent`: told the source "upload:<id>" and the first file's name
 * when all have come, and "" when they are taken back. What no job has `taken` goes with the dialog.
 */
export function Upload({ wrong, taken, onSent }) {
  const [files, setFiles] = useState([]);
  const [news, setNews] = useState(null); // {stage, done, total}, {failed}, {sent}
  const [over, setOver] = useState(false);
  const going = useRef({ abort: null, upload: null });

  const begin = async (chosen) => {
    const abort = new AbortController();
    const now = (going.current = { abort, upload: null });
    const hear = (news) => {
      if (news.upload) now.upload = news.upload;
      else setNews(news);
    };
    setFiles(chosen);
    setNews({ stage: "reading", done: 0, total: 1 });
    try {
      const upload = await send(nameOf(chosen), chosen, hear, abort.signal);
      setNews({ sent: true });
      onSent(`upload:${upload}`, chosen[0].name);
    } catch (error) {
      if (!abort.signal.aborted) setNews({ failed: said(error) });
    }
  };
  const leave = () => {
    going.current.abort?.abort();
    if (going.current.upload && !taken.current) takeBack(going.current.upload);
    going.current = { abort: null, upload: null };
  };
  useEffect(() => leave, []);
  const cancel = () => {
    leave();
    setFiles([]);
    setNews(null);
    onSent("", "");
  };
  const chosen = (list) => list.length && begin([...new Map([...list].map((file) => [file.name, file])).values()]);
  if (news) return html`<${Going} files=${files} news=${news} wrong=${wrong} cancel=${cancel} again=${() => begin(files)} />`;
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

/** How far they are. */
function Going({ files, news, wrong, cancel, again }) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const words = { reading: "Reading, so that what arrives can be checked", sending: "Sending", waiting: "The studio does not take it now; trying again, at" };
  const part = news.total ? news.done / news.total : null;
  return html`<div class="going" role="group" aria-label="Upload">
    <p><b>${nameOf(files)}</b> <span class="help">${count(files.length)} ${files.length === 1 ? "file" : "files"}, ${size(total)}</span></p>
    ${news.stage && html`<${Bar} share=${part} label="Progress of the upload" /><p class="help" role="status">${words[news.stage]}: ${share(part)}</p>`}
    ${news.failed && html`<p class="refusal" role="alert">${news.failed}</p>`}
    ${news.sent && html`<p class="help" role="status">All of it is on the studio's machine.</p>`}
    ${wrong && html`<p class="refusal" role="alert">${wrong}</p>`}
    <div class="verbs">${news.failed && html`<button type="button" onClick=${again}>Go on</button>`}
      <button type="button" class="quiet" onClick=${cancel}>${news.sent ? "Take it back" : "Cancel the upload"}</button></div>
  </div>`;
}
