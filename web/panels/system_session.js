import { useState } from "preact/hooks";
import { remove, said } from "../api.js";
import { about, between, size } from "../lib/format.js";
import { slowClock } from "../state.js";
import { html } from "../ui/html.js";

/** The model that is kept in memory for steering, and the button that gives its memory back. */
export function Session({ session, ended }) {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const end = async () => {
    setBusy(true);
    setFailed("");
    try {
      await remove("/api/session");
    } catch (error) {
      setFailed(said(error));
    }
    setBusy(false);
    ended();
  };
  return html`<section aria-labelledby="session"><h3 id="session">Kept in memory for steering</h3>
    ${session ? html`<div class="card session">
      <dl class="facts">${facts(session).map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
      <button disabled=${busy} onClick=${end}>${busy ? "Ending…" : "End session"}</button>
    </div>` : html`<p class="empty">No model. Steering loads one, and keeps it for a while.</p>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
  </section>`;
}

function facts({ model, saes, precision, device, state, memory_bytes, gpu_bytes, predicted_bytes, expires_at, keep_alive_s }) {
  const left = between(new Date(slowClock.value).toISOString(), expires_at);
  const ends = keep_alive_s === null ? "never by itself" : left === null ? "after its use" : `in ${about(Math.max(left, 0))}, if nobody uses it`;
  return [
    ["Model", [model, precision, device].filter(Boolean).join(" · ")],
    ["SAEs", saes.join(", ") || "none yet"],
    ["It is", state],
    ["Predicted", size(predicted_bytes)],
    ["Memory of its processes", size(memory_bytes)],
    ...(gpu_bytes === null ? [] : [["On the GPU", size(gpu_bytes)]]),
    ["Ends", ends],
  ];
}
