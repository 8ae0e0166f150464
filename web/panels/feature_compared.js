import { density, sayer } from "../lib/feature_words.js";
import { count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { shownToken } from "../lib/token_runs.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Tokens } from "../ui/tokens.js";

/** Two features side by side: their directions, and where both fire. */
export function Compared({ sae, a, b, query }) {
  const { found, failed, again } = useLoaded(`/api/saes/${sae.id}/features/compare?a=${a}&b=${b}`);
  const verbs = html`<a class="button" href=${place("steering", [sae.name], { features: `${a},${b}` })}>Steer with both</a>
    <a href=${place("features", [sae.name, a], query)}>Feature ${a}</a> <a href=${place("features", [sae.name, b])}>Feature ${b}</a>`;
  return html`<${Panel} title=${`Features ${a} and ${b} of ${sae.name}`} verbs=${verbs}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p><p class="verbs"><button onClick=${again}>Try again</button></p>`}
    ${found && html`
      <p class="card">${sentence(found)}</p>
      <div class="pair"><${Side} sae=${sae} one=${found.a} /><${Side} sae=${sae} one=${found.b} /></div>
      <${Shared} found=${found} />`}
  </${Panel}>`;
}

function sentence({ a, b, cosine, both, jaccard }) {
  const directions = cosine === null ? "The angle between their directions is not known." : `The cosine of their directions is ${number(cosine)}.`;
  if (both === null) return `${directions} This extraction kept no places, so where both fire is not known.`;
  const of = (one) => `${share(one.fired ? both / one.fired : 0)} of those of ${one.index}`;
  return `${directions} Both fire on ${count(both)} tokens, ${of(a)} and ${of(b)}; of all on which one of them fires it is ${share(jaccard)}.`;
}

function Side({ sae, one }) {
  const facts = [["Fires on", density(one.density)], ["Max", number(one.max, 2)], ["Typical", number(one.typical, 2)], ["Score", number(one.score, 2)]];
  return html`<section class="card" aria-label=${`Feature ${one.index}`}>
    <h3><a href=${place("features", [sae.name, one.index])}>Feature ${one.index}</a></h3>
    <p class=${one.label ? "label" : "label faint"}>${one.label?.text ?? "No label yet"}</p>
    ${one.label && html`<p class="details">by ${sayer(one.label)}</p>`}
    <p class="details">most on ${one.tokens.map((text) => html`<code key=${text}>${shownToken(text)}</code> `)}</p>
    <dl class="facts">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl></section>`;
}

/** Where both fire most, shaded by the first of them. */
function Shared({ found: { a, b, shared } }) {
  if (!shared?.length) return null;
  return html`<section aria-labelledby="shared"><h3 id="shared">Where both fire</h3><ul class="rows">${shared.map((place) => html`<li class="example both" key=${`${place.row}-${place.position}`}>
    <p class="figure">${a.index}: <b>${number(place.a, 2)}</b><br />${b.index}: <b>${number(place.b, 2)}</b></p>
    <p><${Tokens} texts=${place.texts} values=${place.texts.map((_, at) => (at === place.peak ? place.a : 0))} most=${a.max} peak=${place.peak} /></p>
    <p class="details">window ${count(place.window)}</p></li>`)}</ul></section>`;
}
