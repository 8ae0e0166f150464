import { useState } from "preact/hooks";
import { remove } from "../api.js";
import { html } from "./html.js";
import { Sure } from "./dialog.js";
import { said } from "./form.js";

/** The button that deletes what a row is about, once a person is sure. `loses`: what goes, in a sentence. */
export function Delete({ noun, one, loses }) {
  const [asked, setAsked] = useState(false);
  const [failed, setFailed] = useState(null);
  const close = () => {
    setAsked(false);
    setFailed(null);
  };
  const yes = async () => {
    try {
      await remove(`/api/${noun}s/${one.id}`);
      close();
    } catch (error) {
      setFailed(said(error));
    }
  };
  return html`<button class="quiet" aria-label=${`Delete the ${noun === "sae" ? "SAE" : noun} ${one.name}`} onClick=${() => setAsked(true)}>Delete</button>
    ${asked && html`<${Sure} title=${`Delete ${one.name}?`} verb="Delete" loses=${loses} failed=${failed} onYes=${yes} onClose=${close} />`}`;
}
