import { useEffect, useRef, useState } from "preact/hooks";
import { said } from "../api.js";
import { count, share, size } from "../lib/format.js";
import { send, takeBack } from "../upload.js";
import { Bar } from "./bar.js";
import { html } from "./html.js";

const STAGES = {
  reading: "Reading, so that what arrives can be checked", sending: "Sending",
  waiting: "The studio does not take it now; trying again, at",
};

/**
 * Files of this browser on their way to the studio, as an upload `called(files)`. `onSent`: told the source "upload:<id>"
 * and the files when all have come, and "" and none when they are taken back. What no job has `taken` goes with the dialog.
 */
export function useSending({ called, taken, onSent }) {
  const tell = useRef(onSent); // as it is when all is there: the form was filled in meanwhile
  tell.current = onSent;
  const [files, setFiles] = useState([]);
  const [news, setNews] = useState(null); // {stage, done, total}, {failed} or {sent}
  const going = useRef({ abort: null, upload: null });
  const begin = async (chosen) => {
    if (!chosen.length) return;
    const abort = new AbortController();
    const now = (going.current = { abort, upload: null });
    setFiles(chosen);
    setNews({ stage: "reading", done: 0, total: 1 });
    try {
      const upload = await send(called(chosen), chosen, (one) => (one.upload ? (now.upload = one.upload) : setNews(one)), abort.signal);
      setNews({ sent: true });
      tell.current(`upload:${upload}`, chosen);
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
    setNews(null);
    onSent("", []);
  };
  return { name: files.length ? called(files) : "", files, news, begin, cancel };
}

/** How far they are. `label`: what is sent. */
export function Sending({ sending: { name, files, news, begin, cancel }, label, wrong = "" }) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const part = news.total ? news.done / news.total : null;
  return html`<div class="sending" role="group" aria-label=${label}>
    <p><b>${name}</b> <span class="help">${count(files.length)} ${files.length === 1 ? "file" : "files"}, ${size(total)}</span></p>
    ${news.stage && html`<${Bar} share=${part} label="Progress of the upload" /><p class="help" role="status">${STAGES[news.stage]}: ${share(part)}</p>`}
    ${news.failed && html`<p class="refusal" role="alert">${news.failed}</p>`}
    ${news.sent && html`<p class="help" role="status">All of it is on the studio's machine.</p>`}
    ${wrong && html`<p class="refusal" role="alert">${wrong}</p>`}
    <p class="verbs">${news.failed && html`<button type="button" onClick=${() => begin(files)}>Go on</button>`}
      <button type="button" class="quiet" onClick=${cancel}>${news.sent ? "Take it back" : "Cancel the upload"}</button></p>
  </div>`;
}
