import { useEffect, useState } from "preact/hooks";
import { Command } from "../ui/command.js";
import { Dialog } from "../ui/dialog.js";
import { html } from "../ui/html.js";

const HERE = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** A pairing code for as long as it is open: the code, where to type it, and by what the studio is known there. */
export function Paired({ pairing: { code, ends_in_s, url, fingerprint }, onClose }) {
  const left_s = useCountdown(ends_in_s);
  // A page that was called by a name that others know as well tells that name, which may be a proxy's.
  const address = HERE.test(location.hostname) ? url : location.origin;
  const pin = address === url || url === null ? fingerprint : null;
  return html`<${Dialog} title="Pairing code" onClose=${onClose}>
    ${left_s > 0 ? html`<p class="paircode"><span>${code.slice(0, 4)}</span> <span>${code.slice(4)}</span></p>
      <p class="help" role="timer">Good once, for another ${clock(left_s)}</p>
      ${address === null ? html`<p class="loses">Other machines do not reach this studio yet. It has to be started so that they do: <code>mistudiod serve --listen lan</code></p>`
        : html`<ol class="steps"><li>On the device, open <b class="where">${address}</b></li>
          ${pin && html`<li>Its browser will not know the certificate. It is this studio's if its SHA-256 fingerprint is <code class="where">${pin}</code></li>`}
          <li>Type the code there.</li></ol>
          <p class="help">For the command line of another machine:</p>
          <${Command} line=${line(address, code, pin)} />`}`
      : html`<p>This code is over. Make another when the device is at hand.</p>`}
    <footer class="verbs"><button type="button" class="first" data-first onClick=${onClose}>Done</button></footer>
  </${Dialog}>`;
}

const line = (address, code, pin) => `mistudio context add studio ${address} --pair ${code}${pin ? ` --fingerprint ${pin}` : ""}`;
const clock = (s) => `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;

/** Whole seconds that are left of so many, from when this is first drawn. */
function useCountdown(from_s) {
  const [left_s, setLeft] = useState(from_s);
  useEffect(() => {
    const end = performance.now() + from_s * 1000;
    const timer = setInterval(() => setLeft(Math.max(0, Math.ceil((end - performance.now()) / 1000))), 500);
    return () => clearInterval(timer);
  }, [from_s]);
  return left_s;
}
