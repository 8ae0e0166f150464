import { useEffect, useRef, useState } from "preact/hooks";
import { said } from "../api.js";
import { count, share, size } from "../lib/format.js";
import { Bar } from "../ui/bar.js";
import { html } from "../ui/html.js";
import { send, takeBack } from "../upload.js";

const STAGES = { reading: "Reading, so that what arrives can be checked", sending: "Sending" };

/**
 * Files or a folder of this browser, sent to the studio. `onSent`: told the source "upload:<id>" and what the folder or
 * the first file is called, and two empty texts when they are taken back. What no job has `taken` goes with the dialog.
 */
export function SendFiles({ taken, onSent }) {
  const tell = useRef(onSent); // as it is when all is there: the form was filled in meanwhile
  tell.current = onSent;
  const [files, setFiles] = useState([]);
  const [news, setNews] = useState({}); // {stage, done, total}, {failed} or {sent}
  const going = useRef({ abort: null, upload: null });
  const begin = async (chosen) => {
    const abort = new AbortController();
    going.current = { abort, upload: null };
    setFiles(chosen);
    try {
      const upload = await send(calledOf(chosen), chosen, (one) => (one.upload ? (going.current.upload = one.upload) : setNews(one)), abort.signal);
      setNews({ sent: true });
      tell.current(`upload:${upload}`, calledOf(chosen));
    } catch (error) {
      if (!abort.signal.aborted) setNews({ failed: said(error) });
    }
  };
  const leave = () => {
    const { abort, upload } = going.current;
    abort?.abort();
    if (upload && !taken.current) takeBack(upload);
    going.current = { abort: null, upload: null };
  };
  useEffect(() => leave, []);
  const cancel = () => {
    leave();
    setFiles([]);
    setNews({});
    onSent("", "");
  };
  if (files.length) return html`<${Going} files=${files} news=${news} cancel=${cancel} again=${() => begin(files)} />`;
  const chosen = ({ target }) => target.files.length && begin([...target.files].filter((file) => !/(^|\/)\./.test(pathOf(file))).map(placed));
  return html`<details><summary>Or send it from this computer</summary><div class="filters">
    <label>A folder <input type="file" webkitdirectory onChange=${chosen} /></label>
    <label>Files <input type="file" multiple accept=".safetensors,.npz,.json,.pt,.pth" onChange=${chosen} /></label></div>
    <p class="help">A folder as its maker publishes it; its name may say which model and layer are meant.</p></details>`;
}

const pathOf = (file) => file.webkitRelativePath || file.name;

/** A file under the path that it has in its folder. */
const placed = (file) => ({ name: pathOf(file), size: file.size, slice: (from, to) => file.slice(from, to) });

/** The folder that they lie in, else the first that holds weights. */
const calledOf = (files) => (files.find(({ name }) => !name.endsWith(".json")) ?? files[0]).name.split("/")[0].replace(/\.(safetensors|npz|pt|pth)$/, "");

/** How far they are. */
function Going({ files, news, cancel, again }) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const part = news.total ? news.done / news.total : null;
  return html`<div role="group" aria-label="Files of this computer">
    <p><b>${calledOf(files)}</b> <span class="details">${count(files.length)} ${files.length === 1 ? "file" : "files"}, ${size(total)}</span></p>
    ${news.stage && html`<${Bar} share=${part} label="Progress of the upload" /><p class="help" role="status">${STAGES[news.stage]}: ${share(part)}</p>`}
    ${news.failed && html`<p class="refusal" role="alert">${news.failed}</p>`}
    ${news.sent && html`<p class="help" role="status">All of it is on the studio’s machine.</p>`}
    <p class="verbs">${news.failed && html`<button type="button" onClick=${again}>Go on</button>`}
      <button type="button" class="quiet" onClick=${cancel}>${news.sent ? "Take it back" : "Cancel the upload"}</button></p>
  </div>`;
}
