import { useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { Act } from "./act.js";
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
  return html`<${Act} disabled=${busy} onClick=${go}>${verb}</${Act}>
    ${failed && html` <span class="refusal" role="alert">${failed}</span>`}`;
}
