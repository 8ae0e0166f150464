import { useState } from "preact/hooks";
import { put, said } from "../api.js";
import { Act } from "./do.js";
import { html } from "./html.js";

/** A place for a secret within a form. `name`: what the studio calls it; `label`: what it is; `kept`: told when it is there. */
export function Secret({ name, label, verb = "Keep and try again", kept }) {
  const [value, setValue] = useState("");
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  const keep = async () => {
    setBusy(true);
    try {
      await put(`/api/secrets/${name}`, { value });
      setValue("");
      setFailed("");
      kept();
    } catch (error) {
      setFailed(said(error));
    } finally {
      setBusy(false);
    }
  };
  const keys = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // or the form around it would be sent
    if (value && !busy) keep();
  };
  return html`<div class="filters"><input type="password" aria-label=${label} placeholder=${label} autocomplete="off" value=${value}
      onInput=${({ target }) => setValue(target.value)} onKeyDown=${keys} />
      <${Act} disabled=${!value || busy} onClick=${keep}>${verb}</${Act}></div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}`;
}
