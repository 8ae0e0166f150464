import { useEffect, useRef } from "preact/hooks";
import { Act } from "./do.js";
import { html } from "./html.js";

/** Where somebody was before the dialog, or before the one in whose place it stands: with that nothing has the focus. */
let opener = /** @type {any} */ (null);

/** A dialog that is open for as long as it is drawn; `onClose` is told when a person has closed it; `wide`: for long lines. */
export function Dialog({ title, onClose, wide = false, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    const { current } = dialog;
    if (document.activeElement !== document.body) opener = document.activeElement;
    const before = opener;
    current.showModal();
    (current.querySelector("[data-first]") ?? current.querySelector("input, select, textarea"))?.focus();
    // A dialog that is taken away, and not closed, gives the focus back to nothing.
    return () => queueMicrotask(() => document.activeElement === document.body && before?.focus({ preventScroll: true }));
  }, []);
  return html`<dialog ref=${dialog} class=${wide ? "wide" : undefined} aria-labelledby="dialog" onClose=${onClose}>
    <header>
      <h2 id="dialog">${title}</h2>
      <button type="button" class="quiet" aria-label="Close" onClick=${() => dialog.current.close()}>✕</button>
    </header>
    ${children}
  </dialog>`;
}

/** Ask before something is deleted. `loses`: what goes with it, in a sentence. */
export function Sure({ title, verb, loses, failed, onYes, onClose }) {
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p class="loses">${loses}</p>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    <footer class="verbs">
      <button type="button" data-first onClick=${onClose}>Keep</button>
      <${Act} class="bad" onClick=${onYes}>${verb}</${Act}>
    </footer>
  </${Dialog}>`;
}
