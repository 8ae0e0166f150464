import { useState } from "preact/hooks";
import { remove, said } from "../api.js";
import { html } from "./html.js";
import { Later } from "./later.js";

const Sure = (props) => html`<${Later} from=${() => import("./dialog.js").then((found) => found.Sure)} ...${props} />`;

/** The button that deletes what a row is about, once a person is sure. `loses`: what goes, in a sentence; `gone`: told when it has. */
export function Delete({ noun, one, loses, gone }) {
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
      gone?.();
    } catch (error) {
      setFailed(said(error));
    }
  };
  return html`<button class="quiet" aria-label=${`Delete the ${noun === "sae" ? "SAE" : noun} ${one.name}`} onClick=${() => setAsked(true)}>Delete</button>
    ${asked && html`<${Sure} title=${`Delete ${one.name}?`} verb="Delete" loses=${loses} failed=${failed} onYes=${yes} onClose=${close} />`}`;
}
