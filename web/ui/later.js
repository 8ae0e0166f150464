import { useEffect, useState } from "preact/hooks";
import { html } from "./html.js";

/** A part of the page whose code is fetched when it is first drawn. `from`: () → a promise of its component. */
export function Later({ from, ...props }) {
  const [Found, setFound] = useState(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    from().then((found) => setFound(() => found), () => setFailed(true));
  }, []);
  if (failed) return html`<p class="empty">This part of the page could not be fetched: reload it.</p>`;
  return Found && html`<${Found} ...${props} />`;
}

/**
 * A style sheet, in force when this resolves.
 * @param {string} href
 * @returns {Promise<HTMLLinkElement>}
 */
export const sheet = (href) => new Promise((loaded, failed) => {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href, onload: () => loaded(link), onerror: failed });
  document.head.append(link);
});
