import { useState } from "preact/hooks";
import { remove, said } from "../api.js";
import { depending } from "../lib/saes.js";
import { go, route } from "../route.js";
import { useLoaded } from "../ui/asked.js";
import { Dialog } from "../ui/dialog.js";
import { html } from "../ui/html.js";

/** Whether its own page is shown, which is of nothing then. */
const isOpen = ({ name }) => route.peek().panel === "saes" && route.peek().open[0] === name;

/** Ask before an SAE goes into the trash, having said exactly what goes with it and what stays. */
export function DeleteSae({ sae, onClose }) {
  const { found, failed } = useLoaded(`/api/saes/${sae.id}/dependents`);
  const [refused, setRefused] = useState("");
  const [busy, setBusy] = useState(false);
  const { goes, stays, holds } = found ? depending(found) : { goes: [], stays: [], holds: [] };
  const yes = () => {
    setBusy(true);
    remove(`/api/saes/${sae.id}`).then(() => onClose() ?? (isOpen(sae) && go("saes")), (error) => setRefused(said(error)) ?? setBusy(false));
  };
  const list = (title, some) => some.length > 0 && html`<p>${title}</p><ul class="bulleted">${some.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`;
  return html`<${Dialog} title=${`Delete ${sae.name}?`} onClose=${onClose}>
    <div class="loses">
      ${!found && html`<p>${failed ?? "Looking at what depends on it."}</p>`}
      ${found && html`${list("It cannot go yet:", holds)}
        <p>The SAE goes into the trash and can be restored for 7 days.</p>
        ${goes.length ? list("With it go:", goes) : html`<p>Nothing but its own folder goes with it.</p>`}
        ${list("What names it stays:", stays)}`}
    </div>
    ${refused && html`<p class="refusal" role="alert">${refused}</p>`}
    <footer class="verbs">
      <button type="button" data-first onClick=${onClose}>Keep</button>
      <button type="button" class="bad" disabled=${!found || holds.length > 0 || busy} onClick=${yes}>Delete SAE</button>
    </footer>
  </${Dialog}>`;
}
