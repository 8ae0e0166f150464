import { useState } from "preact/hooks";
import { patch, post, said } from "../api.js";
import { tagged } from "../lib/saes.js";
import { go } from "../route.js";
import { Act } from "../ui/do.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Tags } from "./sae_rows.js";

/** What a person says of an SAE, edited in place: its tags and its note. */
export function About({ sae }) {
  const [draft, setDraft] = useState(null);
  const [failed, setFailed] = useState("");
  const edit = () => setDraft({ tags: (sae.tags ?? []).join(" "), note: sae.note ?? "" });
  const keep = (event) => {
    event.preventDefault();
    const note = draft.note.trim() || null;
    patch(`/api/saes/${sae.id}`, { ...tagged(sae.tags ?? [], draft.tags), note }).then(() => setDraft(null) ?? setFailed(""), (error) => setFailed(said(error)));
  };
  const set = (name) => ({ target }) => setDraft({ ...draft, [name]: target.value });
  if (!draft) {
    return html`<section class="about" aria-label="Note and tags"><${Tags} tags=${sae.tags} /> ${sae.note && html`<p class="text">${sae.note}</p>`}
      <button class="quiet" onClick=${edit}>${sae.note || sae.tags?.length ? "Edit note and tags" : "Add a note or tags"}</button></section>`;
  }
  return html`<section class="about" aria-label="Note and tags"><form class="card" onSubmit=${keep} onKeyDown=${(event) => event.key === "Escape" && setDraft(null)}>
    <div class="field"><label for="tags">Tags</label><input id="tags" ref=${focused} value=${draft.tags} autocomplete="off" onInput=${set("tags")} />
      <p class="help">words, with blanks between; the list of SAEs is filtered by them</p></div>
    <div class="field"><label for="note">Note</label><textarea id="note" rows="4" value=${draft.note} onInput=${set("note")}></textarea></div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    <p class="verbs"><${Act} type="submit" class="first">Keep</${Act}><button type="button" onClick=${() => setDraft(null) ?? setFailed("")}>Cancel</button></p>
  </form></section>`;
}

const focused = (element) => element && !element.dataset.met && (element.dataset.met = "yes") && element.focus();

/** Another name, and what goes along. */
export function Rename({ sae, onClose }) {
  const send = ({ name }) => post(`/api/saes/${sae.id}/rename`, { name }).then((made) => go("saes", [made.name]));
  return html`<${Form} title=${`Rename ${sae.name}`} verb="Rename" onClose=${onClose} start=${{ name: sae.name }} send=${send}
    fields=${[{ name: "name", label: "New name", needed: true }]}>
    <p>Its features, labels, marks, ranges and exports go along, and profiles and runs of steering name it so. Jobs that are over keep the name that they knew it by.</p></${Form}>`;
}
