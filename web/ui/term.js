import { useEffect, useId, useRef, useState } from "preact/hooks";
import { explained } from "../lib/terms.js";
import { html } from "./html.js";

const EDGE_PX = 8; // that is kept free at the sides of the page

/**
 * A word, and on hover, focus and tap what it means (lib/terms.js): `<${Term} of="SAE" />`; what stands between its tags
 * is shown instead. A word that has no explanation is only a word.
 */
export function Term({ of, children }) {
  const sentence = explained(of);
  return sentence ? html`<${Explained} sentence=${sentence}>${children ?? of}</${Explained}>` : html`${children ?? of}`;
}

function Explained({ sentence, children }) {
  const id = useId();
  const word = useRef(null);
  const tip = useRef(null);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (!open) return;
    tip.current.showPopover();
    stand(tip.current, word.current);
    const hide = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // a dialog around it stays
      setOpen(false);
    };
    const leave = () => setOpen(false);
    addEventListener("keydown", hide, true);
    addEventListener("scroll", leave, true);
    return () => {
      removeEventListener("keydown", hide, true);
      removeEventListener("scroll", leave, true);
    };
  }, [open]);
  const [show, hide] = [() => setOpen(true), () => setOpen(false)];
  return html`<span class="term" onMouseEnter=${show} onMouseLeave=${hide}>
    <span ref=${word} class="word" tabindex="0" aria-describedby=${open ? id : undefined} onFocus=${show} onBlur=${hide} onClick=${show}>${children}</span>
    ${open && html`<span ref=${tip} class="tip" id=${id} role="tooltip" popover="manual">${sentence}</span>`}</span>`;
}

/** Below the word, or above it where there is no room, and never beyond the sides of the page. */
function stand(tip, word) {
  const [at, own] = [word.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = Math.min(at.left, innerWidth - own.width - EDGE_PX);
  const top = at.bottom + own.height > innerHeight ? at.top - own.height : at.bottom;
  tip.style.left = `${Math.max(left, EDGE_PX)}px`;
  tip.style.top = `${top}px`;
}
