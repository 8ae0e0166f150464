import { count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { artifacts } from "../state.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

const LINEAGES = {
  training: "They are of one training.",
  extended: "They are of one training, that was gone on with.",
  beginning: "They began alike, with one seed.",
};

/** A link to a feature of an SAE that is here as it was compared, not as it was at a checkpoint. */
function feature(sae, index) {
  const name = sae.split("@")[0];
  return artifacts.sae.value.has(name) ? html`<a href=${place("features", [name, index])}>${index}</a>` : String(index);
}

/** Two SAEs, and what of their features they have in common. */
export function Pair({ pair }) {
  const { a, b, matching, moved, unmatched_because: why } = pair;
  if (!matching) return html`<section class="card"><h3>${a} and ${b}</h3><p>${why}</p></section>`;
  const id = `pair ${a} ${b}`.replace(/[^\w-]/g, "-");
  return html`<section aria-labelledby=${id}><h3 id=${id}>Features of ${a} and ${b}</h3>
    <div class="plots">${[[a, b, matching.a_in_b], [b, a, matching.b_in_a]].map(([here, there, side]) => html`<${Side} key=${here} here=${here} there=${there} side=${side} edges=${matching.edges} />`)}</div>
    ${moved && html`<${Moved} a=${a} b=${b} moved=${moved} />`}
    <${Best} a=${a} b=${b} matching=${matching} />
    <div class="plots">${[[a, b, matching.a_in_b], [b, a, matching.b_in_a]].map(([here, there, side]) => html`<${Alone} key=${here} here=${here} there=${there} side=${side} />`)}</div>
  </section>`;
}

/** How near the features of one come to those of the other, beside how near random directions come. */
function Side({ here, there, side, edges }) {
  const { random } = side;
  return html`<div class="card"><p>Of ${here}’s ${count(side.alive)} alive features <b>${share(side.matched)}</b> are in ${there} (cosine above 0.7), ${share(side.closely)} closely (0.9);
      best cosine <b>${number(side.mean, 2)}</b> on average, at random ${number(random.mean, 2)}.</p>
    <${Cosines} title=${`Best cosines of ${here} in ${there}`} ours=${side.histogram} random=${random.histogram} edges=${edges} /></div>`;
}

/** Shares of features, and of random directions, by their best cosine. */
function Cosines({ title, ours, random, edges }) {
  const parts = (counts) => {
    const all = counts.reduce((sum, n) => sum + n, 0) || 1;
    return counts.map((n) => n / all);
  };
  const [mine, chance] = [parts(ours), parts(random)];
  const most = Math.max(...mine, ...chance);
  const width = 100 / ours.length;
  const bars = (of, kind, left, wide) => of.map((part, at) => part > 0 && html`<rect key=${at} class=${kind} x=${`${(at + left) * width}%`} width=${`${wide * width}%`} y=${`${100 - (100 * part) / most}%`} height=${`${(100 * part) / most}%`} />`);
  return html`<figure class="cosines" aria-label=${title}>
    <svg role="img" aria-label=${`${title}, beside those of random directions`} height="96">${bars(chance, "chance", 0.5, 0.4)}${bars(mine, "ours", 0.08, 0.4)}</svg>
    <figcaption><span>0</span><span><i class="key ours"></i> features <i class="key chance"></i> random directions, by best cosine</span><span>1</span></figcaption>
    <details><summary>Show data</summary><table class="plainly"><thead><tr><th scope="col">Cosine</th><th scope="col">Features</th><th scope="col">Random</th></tr></thead>
      <tbody>${ours.map((n, at) => (n || random[at]) > 0 && html`<tr key=${at}><td>${number(edges[at], 2)} to ${number(edges[at + 1], 2)}</td><td class="figure">${count(n)}</td><td class="figure">${count(random[at])}</td></tr>`)}</tbody></table></details>
  </figure>`;
}

function Moved({ a, b, moved }) {
  return html`<p class="card">${LINEAGES[moved.lineage]} Row by row ${count(moved.alive_in_both)} features that are alive in both have turned to a cosine of ${number(moved.mean)} on average
    (median ${number(moved.median)}); ${count(moved.died)} are alive in ${a} alone, ${count(moved.born)} in ${b} alone.
    ${moved.changed.length > 0 && html`Turned most: ${moved.changed.slice(0, 5).map((one, at) => html`${at ? ", " : ""}${feature(b, one.feature)} (${number(one.cosine, 2)})`)}.`}</p>`;
}

function Best({ a, b, matching }) {
  const columns = [
    [a, "figure", (one) => feature(a, one.a)],
    [b, "figure", (one) => feature(b, one.b)],
    ["Cosine", "figure", (one) => number(one.cosine)],
    ["Fires on, here", "figure", (one) => share(one.density_a)],
    ["Fires on, there", "figure", (one) => share(one.density_b)],
  ];
  return html`<p>${count(matching.pairs)} pairs are each other’s best: ${count(matching.pairs_matched)} of them above 0.7, ${count(matching.pairs_closely)} above 0.9.</p>
    ${matching.best_pairs.length > 0 && html`<details><summary>The ${count(matching.best_pairs.length)} nearest pairs</summary>
      <${Table} label=${`Matched features of ${a} and ${b}`} columns=${columns} rows=${matching.best_pairs} of=${(one) => one.a} /></details>`}`;
}

/** What fires most of what only one of the two has. */
function Alone({ here, there, side }) {
  if (!side.unmatched.length) return null;
  const columns = [
    ["Feature", "figure", (one) => feature(here, one.feature)],
    ["Fires on", "figure", (one) => share(one.density)],
    [`Nearest in ${there}`, "figure", (one) => feature(there, one.nearest)],
    ["Cosine", "figure", (one) => number(one.cosine, 2)],
  ];
  return html`<details><summary>Only in ${here}: the ${count(side.unmatched.length)} that fire most</summary>
    <${Table} label=${`Only in ${here}`} columns=${columns} rows=${side.unmatched} of=${(one) => one.feature} /></details>`;
}
