import { useEffect, useRef, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { isEnded, title } from "../lib/jobs.js";
import { jobs } from "../state.js";
import { Copy } from "./copy.js";
import { Dialog } from "./dialog.js";
import { html } from "./html.js";

const LOOK_MS = 2000;
const NEAR_PX = 24;

/** The end of what a job's worker wrote, in its newest lines, as it writes them. */
export function Log({ job }) {
  const [found, setFound] = useState({ log: null, failed: "" });
  const box = useRef(null);
  const isOver = isEnded(jobs.value.get(job.id) ?? job);
  useEffect(() => {
    let wanted = true;
    const tell = (one) => wanted && setFound(one);
    const look = () => get(`/api/jobs/${job.id}/log`).then(({ log }) => tell({ log, failed: "" }), (error) => tell({ log: null, failed: said(error) }));
    look();
    const timer = isOver ? 0 : setInterval(() => document.hidden || look(), LOOK_MS);
    return () => {
      wanted = false;
      clearInterval(timer);
    };
  }, [job.id, isOver]);
  const isAtEnd = useRef(true);
  useEffect(() => {
    if (box.current && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [found.log]);
  const scrolled = ({ target }) => (isAtEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_PX);
  if (found.failed) return html`<p class="refusal" role="alert">${found.failed}</p>`;
  if (found.log === null) return html`<p class="details late">Fetching the log.</p>`;
  if (!found.log) return html`<p class="details">Its worker has written nothing.</p>`;
  return html`<div class="log"><pre ref=${box} tabindex="0" aria-label=${`Log of job ${job.id}`} onScroll=${scrolled}>${found.log}</pre>
    <${Copy} text=${found.log} what="the log" /></div>`;
}

/** A button that opens the log of a job. */
export function OpenLog({ job }) {
  const [open, setOpen] = useState(false);
  return html`<button aria-label=${`Open log of job ${job.id}`} onClick=${() => setOpen(true)}>Open log</button>
    ${open && html`<${Dialog} title=${`Log of job ${job.id}, ${title(job).join(" ")}`} wide onClose=${() => setOpen(false)}><${Log} job=${job} /></${Dialog}>`}`;
}
