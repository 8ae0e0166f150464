import { useState } from "preact/hooks";
import { patch, said } from "../api.js";
import { named } from "../lib/names.js";
import { place } from "../lib/route.js";
import { useLoaded } from "../ui/asked.js";
import { Act } from "../ui/do.js";
import { focusFirst, useFocusBack } from "../ui/focus.js";
import { html } from "../ui/html.js";

/** What a person has marked: a star, a note, and the lists that it is in. */
export function Marks({ sae, feature, changed }) {
  const { marks, index } = feature;
  const [note, setNote] = useState(null);
  const [failed, setFailed] = useState(null);
  const write = useFocusBack(note !== null);
  const mark = (edit) => patch(`/api/saes/${sae.id}/features/${index}`, edit).then(() => { setFailed(null); changed(); }, (error) => { setFailed(said(error)); throw error; });
  const keep = (event) => {
    event.preventDefault();
    mark({ note: note || null }).then(() => setNote(null), () => {});
  };
  return html`<section class="card" aria-labelledby="marks">
    <h3 id="marks">Your marks</h3>
    ${note === null
      ? html`${marks.note && html`<p class="text">${marks.note}</p>`}
        <p class="verbs"><button aria-pressed=${marks.starred} onClick=${() => mark({ starred: !marks.starred }).catch(() => {})}>${marks.starred ? "★ Starred" : "☆ Star"}</button>
        <button ref=${write} onClick=${() => setNote(marks.note ?? "")}>${marks.note ? "Change the note" : "Write a note"}</button></p>`
      : html`<form onSubmit=${keep}><label class="field">Note <textarea rows="3" ref=${focusFirst} value=${note} onInput=${(event) => setNote(event.target.value)}></textarea></label>
        <p class="verbs"><${Act} type="submit" class="first">Keep</${Act}><button type="button" onClick=${() => setNote(null)}>Cancel</button></p></form>`}
    <${Lists} sae=${sae} lists=${marks.lists} mark=${mark} />
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
  </section>`;
}

/** Its lists, each a way to all that is in it; a new name makes a new list. */
function Lists({ sae, lists, mark }) {
  const [name, setName] = useState("");
  const { found, again } = useLoaded(`/api/saes/${sae.id}/lists`, lists.join("\n"));
  const others = (found?.lists ?? []).map((one) => one.name).filter((one) => !lists.includes(one));
  const add = (event) => {
    event.preventDefault();
    if (name.trim()) mark({ lists: [...lists, named(name.trim(), "list")] }).then(() => { setName(""); again(); }, () => {});
  };
  return html`<div class="lists">
    ${lists.length > 0 && html`<ul class="chosen" aria-label="Lists">${lists.map((one) => html`<li key=${one}>
      <a href=${place("features", [sae.name], { filter: `list:${JSON.stringify(one)}` })}>${one}</a>
      <button class="quiet" aria-label=${`Take out of the list ${one}`} onClick=${() => mark({ lists: lists.filter((other) => other !== one) }).catch(() => {})}>✕</button></li>`)}</ul>`}
    <form class="joined" onSubmit=${add}><input aria-label="Put into the list" placeholder="name of a list" list="lists" maxlength="64" value=${name} onInput=${(event) => setName(event.target.value)} />
      <datalist id="lists">${others.map((one) => html`<option value=${one} key=${one} />`)}</datalist><${Act} type="submit" disabled=${!name.trim()}>Add to list</${Act}></form></div>`;
}
