import { useState } from "preact/hooks";
import { html } from "./html.js";

const TOLD_MS = 2000;

/** A button that copies a text; `what` it is, for those who only hear it. */
export function Copy({ text, what }) {
  const [told, setTold] = useState("Copy");
  const copy = async ({ currentTarget }) => {
    setTold((await copied(text, currentTarget)) ? "Copied" : "Not allowed");
    setTimeout(() => setTold("Copy"), TOLD_MS);
  };
  return html`<button type="button" class="quiet" aria-label=${told === "Copy" ? `Copy ${what}` : told} onClick=${copy}>${told}</button>`;
}

/** A browser gives the clipboard to pages of https and of its own machine; for all others there is the old way. */
async function copied(text, button) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
  button.after(area); // within a dialog, for what is outside cannot be selected
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.focus();
  return done;
}
