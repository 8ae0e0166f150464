import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { html } from "../ui/html.js";
import { Linked } from "../ui/linked.js";
import { Secret } from "../ui/secret.js";

const HUB = /^[\w.-]+\/[\w.-]+(:.*)?$/;
const CLOSED = /gated|private|stored token/; // what the studio says of a repository that a token may open

/**
 * A place for the token of the Hub, where a source of it is named: private and gated repositories need one.
 * `failed`: the studio's sentence, which names the page to ask at; `page`: that page, where it is known otherwise;
 * `onKept`: told when a token was kept, so that what was refused can be asked again.
 */
export function HubToken({ source = "", failed = "", page = null, onKept }) {
  const [known, setKnown] = useState(null);
  const isHub = HUB.test(source);
  const isClosed = page !== null || CLOSED.test(failed);
  useEffect(() => {
    if (isHub && known === null) get("/api/secrets").then(({ secrets }) => setKnown(secrets.some((one) => one.name === "hf")), () => setKnown(false));
  }, [isHub]);
  if (!isHub || known === null) return null;
  if (known && !isClosed) return html`<p class="help">The studio's token of the Hub is used.</p>`;
  const kept = () => {
    setKnown(true);
    onKept?.();
  };
  return html`<details class="hubtoken" open=${isClosed}><summary>${known ? "Another token of the Hub" : "It is private or gated"}</summary>
    <ol class="steps">
      <li>Ask for access on its page on the Hub${page && html`: <${Linked} text=${page} />`}.</li>
      <li>Make a token with read access in your settings there.</li>
      <li>Put it here. It is kept on the studio's machine and never shown.</li>
    </ol>
    <${Secret} name="hf" label="Token of the Hub" verb="Keep the token" kept=${kept} />
  </details>`;
}
