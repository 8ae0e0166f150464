import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { get, said } from "../api.js";
import { count, number } from "../lib/format.js";
import { around } from "../lib/token_runs.js";
import { Copy } from "../ui/copy.js";
import { html } from "../ui/html.js";
import { Tokens } from "../ui/tokens.js";

const BANDS = ["0 to 20%", "20 to 40%", "40 to 60%", "60 to 80%", "80 to 100%"];
const GROUPS = [
  ["Strongest", (one) => one.kind === "top"],
  ...BANDS.map((words, band) => [`${words} of the maximum`, (one) => one.kind === "band" && one.band === band]).reverse(),
  ["At random", (one) => one.kind === "random"],
  ["Nearly fired", (one) => one.kind === "near"],
];
const FIRST = 8; // of a group, before more are asked for
// How texts are shown stays from one feature to the next.
const breaks = signal(false);
const short = signal(false);

/** Where it fires: the strongest, then those of each band of strength, then where it does not. */
export function Examples({ sae, feature }) {
  const groups = GROUPS.map(([title, belongs]) => [title, feature.examples.filter(belongs)]).filter(([, some]) => some.length);
  if (!groups.length) return null;
  const tick = (of, words) => html`<label class="tick"><input type="checkbox" checked=${of.value} onChange=${({ target }) => (of.value = target.checked)} /> ${words}</label>`;
  return html`<section aria-labelledby="examples"><header class="examples-head"><h3 id="examples">Examples</h3>
      <span class="ticks">${tick(short, "Only around the peak")} ${tick(breaks, "Line breaks")}</span></header>
    ${groups.map(([title, some]) => html`<${Group} key=${title} title=${title} some=${some} sae=${sae} feature=${feature} />`)}</section>`;
}

function Group({ title, some, sae, feature }) {
  const [all, setAll] = useState(false);
  const shown = all ? some : some.slice(0, FIRST);
  return html`<section class="examples" aria-label=${title}><h4>${title} <span class="number">${some.length}</span></h4>
    <ul class="rows">${shown.map((one) => html`<${Example} key=${`${one.row}-${one.first}-${one.peak}`} one=${one} sae=${sae} feature=${feature} />`)}</ul>
    ${shown.length < some.length && html`<button class="quiet" onClick=${() => setAll(true)}>Show all ${some.length}</button>`}</section>`;
}

/** One text; the whole of the window that it was read in comes when it is asked for. */
function Example({ one, sae, feature }) {
  const [whole, setWhole] = useState(null);
  const fetch = () => get(`/api/saes/${sae.id}/features/${feature.index}/windows/${one.row}`).then(
    (found) => setWhole({ texts: found.texts, values: found.activations ?? placed(found.texts, one), peak: one.first + one.peak }),
    (error) => setWhole({ failed: said(error) }),
  );
  const shown = whole?.texts ? whole : short.value ? around(one) : { texts: one.texts, values: one.activations, peak: one.peak };
  const where = [`window ${count(one.window)}`, one.held_out && "kept for scoring"].filter(Boolean).join(" · ");
  return html`<li class="example">
    <b class="figure">${number(one.max, 2)}</b>
    <div><p><${Tokens} texts=${shown.texts} values=${shown.values} most=${feature.max} peak=${shown.peak} breaks=${breaks.value} /></p>
      ${whole?.failed && html`<p class="refusal" role="alert">${whole.failed}</p>`}</div>
    <p class="of"><span class="details" title=${one.held_out ? "labels are not made from it" : ""}>${where}</span>
      <button class="quiet" onClick=${whole?.texts ? () => setWhole(null) : fetch}>${whole?.texts ? "Less" : "Whole"}</button>
      <${Copy} text=${shown.texts.join("")} what="this text" /></p></li>`;
}

/** What an example knows of a window, where the places of all that fires were not kept. */
const placed = (texts, one) => texts.map((_, at) => one.activations[at - one.first] ?? 0);
