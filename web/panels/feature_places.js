import { useState } from "preact/hooks";
import { get, said } from "../api.js";
import { count, number } from "../lib/format.js";
import { html } from "../ui/html.js";
import { Tokens } from "../ui/tokens.js";

const AT_ONCE = 50;

/** Every place in the text where it fires, a page at a time. */
export function Places({ sae, feature }) {
  const [above, setAbove] = useState("");
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  if (feature.dead) return null;
  const fetch = async (more) => {
    const least = more ? found.least : above;
    const query = new URLSearchParams({ limit: `${AT_ONCE}`, ...(least && { above: least }), ...(more && { cursor: found.next }) });
    setBusy(true);
    try {
      const { occurrences, total, next } = await get(`/api/saes/${sae.id}/features/${feature.index}/occurrences?${query}`);
      setFound({ least, total, next, places: more ? [...found.places, ...occurrences] : occurrences });
    } catch (error) {
      setFound({ ...(more && found), failed: said(error) });
    }
    setBusy(false);
  };
  const submit = (event) => {
    event.preventDefault();
    fetch(false);
  };
  return html`<section aria-labelledby="places"><h3 id="places">Every place</h3>
    <form class="filters" onSubmit=${submit}><label>Of an activation of at least <input type="number" min="0" max=${feature.max} step="any" placeholder="any" value=${above} onInput=${(event) => setAbove(event.target.value)} /></label>
      <button type="submit" disabled=${busy}>${busy ? "Looking…" : found ? "Find again" : "Find them"}</button></form>
    ${found?.failed && html`<p class="refusal" role="alert">${found.failed}</p>`}
    ${found?.places && html`<p class="details" role="status">${count(found.total)} places, in the order of the text</p>
      <ul class="rows">${found.places.map((one) => html`<li class="example" key=${`${one.row}-${one.position}`}>
        <b class="figure">${number(one.value, 2)}</b>
        <p><${Tokens} texts=${one.texts} values=${one.texts.map((_, at) => (at === one.peak ? one.value : 0))} most=${feature.max} peak=${one.peak} /></p>
        <p class="of details">window ${count(one.window)}, token ${count(one.position)}</p></li>`)}</ul>
      ${found.next !== null && html`<button disabled=${busy} onClick=${() => fetch(true)}>Show more</button>`}`}
  </section>`;
}
