import { useState } from "preact/hooks";
import { count } from "../lib/format.js";
import { hooksFound, partsOf } from "../lib/hooks.js";
import { html } from "../ui/html.js";

const MOST = 200; // of the list that are drawn; a search finds the others

/** Hooks of a model, of which one or several are chosen: by layer and point, from a list that can be searched. */
export function HookPicker({ model, value, set, error }) {
  const [open, setOpen] = useState(false);
  const [search, setSearch] = useState("");
  const hooks = model?.hooks ?? [];
  const found = hooksFound(hooks, search);
  const turn = (hook) => set(value.includes(hook) ? value.filter((one) => one !== hook) : [...value, hook]);
  const named = search.trim() && !hooks.length ? [partsOf(search.trim())] : []; // of a model whose hooks are not known
  return html`<fieldset class="field hookpicker" aria-describedby=${error ? "hook-error" : "hook-help"}>
    <legend>Hooks</legend>
    <p class="chosenhooks">${value.map((hook) => html`<button type="button" class="chip" key=${hook} aria-label=${`Leave out ${hook}`} onClick=${() => turn(hook)}>
        <code>${hook}</code> <span aria-hidden="true">✕</span></button>`)}
      <button type="button" class="quiet" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "Done" : value.length ? "Choose others" : "Choose hooks"}</button></p>
    ${open && html`<input type="search" aria-label="Find a hook" placeholder="3 resid" autocomplete="off" value=${search}
        onInput=${({ target }) => setSearch(target.value)} onKeyDown=${(event) => event.key === "Enter" && event.preventDefault()} />
      <ul class="hooklist" tabindex="-1" aria-label="Hooks of the model">${[...found, ...named].slice(0, MOST).map(({ hook, layer, point }) => html`<li key=${hook}>
        <label><input type="checkbox" aria-label=${hook} checked=${value.includes(hook)} onChange=${() => turn(hook)} />
          <span class="layer">${layer === null ? "" : `Layer ${layer}`}</span> <code>${point}</code>
          <span class="details">${model?.hook_widths?.[point] ? `${count(model.hook_widths[point])} wide` : ""}</span></label></li>`)}</ul>
      ${!found.length && !named.length && html`<p class="help">No hook of the model has these words.</p>`}
      ${found.length > MOST && html`<p class="help">And ${count(found.length - MOST)} more: search for them.</p>`}`}
    <p class="help" id="hook-help">Where in the model the SAE reads; of several each gets an SAE of its own.</p>
    ${error && html`<p class="refusal" role="alert" id="hook-error">${error}</p>`}
  </fieldset>`;
}
