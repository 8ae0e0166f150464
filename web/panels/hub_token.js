import { useEffect, useState } from "preact/hooks";
import { get, put } from "../api.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";

const HUB = /^[\w.-]+\/[\w.-]+(:.*)?$/;

/** A place for the token of the Hub, where a source of it is named: private and gated repositories need one. */
export function HubToken({ source = "" }) {
  const [known, setKnown] = useState(null);
  const [value, setValue] = useState("");
  const [told, setTold] = useState("");
  const isHub = HUB.test(source);
  useEffect(() => {
    if (isHub && known === null) get("/api/secrets").then(({ secrets }) => setKnown(secrets.some((one) => one.name === "hf")), () => setKnown(false));
  }, [isHub]);
  if (!isHub || known === null) return null;
  if (known) return html`<p class="help">The studio's token of the Hub is used.</p>`;
  const keep = () => put("/api/secrets/hf", { value }).then(() => setKnown(true), (error) => setTold(said(error)));
  return html`<details><summary>It is private or gated</summary>
    <p class="help">Ask for access on its page on the Hub, then make a token with read access in your settings there. It is kept on the studio's machine and never shown.</p>
    <div class="filters"><input type="password" aria-label="Token of the Hub" autocomplete="off" value=${value} onInput=${(event) => setValue(event.target.value)} />
      <button type="button" disabled=${!value} onClick=${keep}>Keep</button></div>
    ${told && html`<p class="refusal" role="alert">${told}</p>`}
  </details>`;
}
