import { useState } from "preact/hooks";
import { put, said } from "../api.js";
import { html } from "../ui/html.js";

/** A place for a secret that a job has missed. `name`: what the studio calls it; `label`: what it is; `kept`: told when it is there. */
export function Secret({ name, label, kept, children }) {
  const [value, setValue] = useState("");
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  const keep = () => {
    setBusy(true);
    put(`/api/secrets/${name}`, { value }).then(() => setValue("") ?? setFailed("") ?? kept(), (error) => setFailed(said(error))).finally(() => setBusy(false));
  };
  return html`<div class="secret"><p class="help">${children} It is kept on the studio’s machine and never shown.</p>
    <div class="filters"><input type="password" aria-label=${label} placeholder=${label} autocomplete="off" value=${value} onInput=${({ target }) => setValue(target.value)} />
      <button type="button" disabled=${!value || busy} onClick=${keep}>Keep and try again</button></div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}</div>`;
}
