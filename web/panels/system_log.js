import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { html } from "../ui/html.js";

const LOOK_MS = 2000;
const TAIL_BYTES = 16_384;
const NEAR_PX = 24; // to the end: whoever has scrolled away is left where they are

/** The end of the daemon's own log, which can be followed. */
export function Log() {
  const [open, setOpen] = useState(false);
  const [follows, setFollows] = useState(true);
  const [{ log, failed }, setFound] = useState(/** @type {{log: string, failed?: string}} */ ({ log: "" }));
  const box = useRef(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (!open || !follows) return;
    const look = () => get(`/api/log?tail_bytes=${TAIL_BYTES}`).then(setFound, (error) => setFound((was) => ({ ...was, failed: said(error) })));
    look();
    const timer = setInterval(() => document.hidden || look(), LOOK_MS);
    return () => clearInterval(timer);
  }, [open, follows]);
  useLayoutEffect(() => {
    if (box.current && atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [log, open]);
  const scrolled = ({ target }) => (atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_PX);
  return html`<section aria-labelledby="log"><h3 id="log">What the daemon says</h3>
    <details class="log" onToggle=${(event) => event.target === event.currentTarget && setOpen(event.currentTarget.open)}><summary>End of its log</summary>
      <pre ref=${box} tabindex="0" aria-label="The daemon's log" onScroll=${scrolled}>${log || "Nothing yet."}</pre>
      ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
      <p class="verbs"><button onClick=${() => setFollows(!follows)}>${follows ? "Stop following" : "Follow"}</button></p>
    </details></section>`;
}
