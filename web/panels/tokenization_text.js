import { useMemo, useRef, useState } from "preact/hooks";
import { count } from "../lib/format.js";
import { piecesOf, visible } from "../lib/pieces.js";
import { html } from "../ui/html.js";

const MOVES = { ArrowRight: 1, ArrowLeft: -1 };

/**
 * A text whose tokens are told apart by colour. What a token is stands below, of the one that is pointed at or focused;
 * arrow keys go from one to the next.
 */
export function CutText({ text, found }) {
  const box = useRef(null);
  const [at, setAt] = useState(null);
  const pieces = useMemo(() => piecesOf(text, found), [found]);
  // Drawn once for each text: pointing at a token changes only the line below.
  const spans = useMemo(() => pieces.map(({ text, id, special }, n) => id === null
    ? text
    : html`<span key=${n} class=${special ? "cut special" : "cut"} data-at=${n} tabindex=${n === 0 ? 0 : -1} title=${`token ${id}`}>${lines(text)}</span>`), [pieces]);
  const tell = ({ target }) => {
    const n = target.closest?.("[data-at]")?.dataset.at;
    if (n !== undefined) setAt(Number(n));
  };
  const move = (event) => {
    const all = [...box.current.querySelectorAll("[data-at]")];
    const to = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : all.indexOf(event.target) + (MOVES[event.key] ?? NaN);
    if (!all[to]) return;
    event.preventDefault();
    all[to].focus();
  };
  return html`<div class="cut-text tokens" dir="auto" ref=${box} role="group" aria-label="The text in tokens" onMouseOver=${tell} onFocusIn=${tell} onKeyDown=${move}>${spans}</div>
    <p class="help pointed">${told(pieces, at) ?? "Point at a token, or go through them by arrow keys, to see its id."}</p>`;
}

function told(pieces, at) {
  const piece = pieces[at];
  if (!piece || piece.id === null) return null;
  const place = pieces.slice(0, at + 1).filter(({ id }) => id !== null).length;
  return html`Token ${count(place)}: <code>${visible(piece.text)}</code> · id ${piece.id}${piece.special && " · special"}`;
}

/** Where a line ends can be seen, and the line ends. */
function lines(text) {
  if (!text.includes("\n")) return text;
  return text.split("\n").flatMap((part, n) => (n ? [html`<i aria-hidden="true">↵</i>`, "\n", part] : [part]));
}
