import { useState } from "preact/hooks";
import { html } from "./html.js";

const TOLD_MS = 2000;

/** A line for the terminal, with a button that copies it where the browser allows that (https or this machine). */
export function Command({ line }) {
  const [told, setTold] = useState("Copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(line);
      setTold("Copied");
    } catch {
      setTold("Not allowed");
    }
    setTimeout(() => setTold("Copy"), TOLD_MS);
  };
  const button = html`<button class="quiet" onClick=${copy}>${told}</button>`;
  return html`<div class="command"><code>${line}</code>${navigator.clipboard && button}</div>`;
}
