import { useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { html } from "./html.js";

/** A button that queues one job, as it stands; why that could not be done stands beside it. */
export function Do({ verb, spec }) {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const go = () => {
    setBusy(true);
    setFailed("");
    submit(spec).catch((error) => setFailed(said(error))).finally(() => setBusy(false));
  };
  return html`<button type="button" disabled=${busy} onClick=${go}>${verb}</button>
    ${failed && html` <span class="refusal" role="alert">${failed}</span>`}`;
}
