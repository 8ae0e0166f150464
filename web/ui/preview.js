import { useState } from "preact/hooks";
import { post, said } from "../api.js";
import { html } from "./html.js";

/** What there is at a source, before anything of it is stored. `at`: which route is asked; `shown`: its answer → what is drawn. */
export function Preview({ source, at, shown }) {
  const [seen, setSeen] = useState(null);
  const look = async () => {
    setSeen({ of: source, busy: true });
    try {
      setSeen({ of: source, found: await post(at, { source }) });
    } catch (error) {
      setSeen({ of: source, failed: said(error) });
    }
  };
  return html`<div class="preview">
    <button type="button" disabled=${!source || seen?.busy} onClick=${look}>${seen?.busy ? "Looking…" : "Preview"}</button>
    ${seen?.failed && html`<p class="refusal" role="alert">${seen.failed}</p>`}
    ${seen?.found && shown(seen.found, seen.of)}
  </div>`;
}
