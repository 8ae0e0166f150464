import { useState } from "preact/hooks";
import { said } from "../api.js";
import { fetchOlder, older } from "../state.js";
import { html } from "./html.js";

/** A button for the jobs of the past that were not fetched yet; nothing when all were. */
export function Older() {
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  if (older.value === null) return null;
  const more = () => {
    setBusy(true);
    fetchOlder().then(() => setFailed(""), (error) => setFailed(said(error))).then(() => setBusy(false));
  };
  return html`<p class="verbs"><button disabled=${busy} onClick=${more}>Fetch older jobs</button>
    ${failed && html`<span class="refusal" role="alert">${failed}</span>`}</p>`;
}
