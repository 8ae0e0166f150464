import { useEffect, useRef } from "preact/hooks";
import { arrived } from "../route.js";
import { Command } from "./command.js";
import { html } from "./html.js";
import { Term } from "./term.js";

/** A panel: its heading, which is told and focused when it is come to and explained where it is a term, what can be done, and what is there. */
export function Panel({ title, count, verbs, children }) {
  const heading = useRef(null);
  useEffect(() => {
    arrived();
    heading.current.focus({ preventScroll: true });
  }, [title]);
  return html`<section class="panel" aria-labelledby="panel">
    <header>
      <h2 id="panel" tabindex="-1" ref=${heading}><${Term} of=${title} /> ${count > 0 && html`<span class="number">${count}</span>`}</h2>
      <div class="verbs">${verbs}</div>
    </header>
    ${children}
  </section>`;
}

/** What stands where nothing is yet: one sentence, a button (`verb`), and the line for the terminal that does the same. */
export function Empty({ children, verb, line }) {
  return html`<div class="empty"><p>${children}</p>${verb && html`<p class="verbs">${verb}</p>`}${line && html`<${Command} line=${line} />`}</div>`;
}
