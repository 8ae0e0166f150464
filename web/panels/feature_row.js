import { density, spark } from "../lib/feature_words.js";
import { number } from "../lib/format.js";
import { place } from "../lib/route.js";
import { go, show } from "../route.js";
import { html } from "../ui/html.js";
import { Line } from "../ui/tokens.js";

// Of each column: its title, what it is sorted by first, and the class of its cells.
/** @type {[title: string, first: string | null, kind?: string][]} */
const COLUMNS = [
  ["Feature", "index"],
  ["Label", "label"],
  ["Score", "-score", "figure"],
  ["Fires on", "-density", "figure"],
  ["Max", "-max", "figure"],
  ["Strongest example", null],
];

/** The heading: a click sorts, another the other way round. */
export function Head({ sort }) {
  const by = sort.replace(/^-/, "");
  const cell = ([title, first, kind = ""]) => {
    const is = first !== null && first.replace(/^-/, "") === by;
    const next = sort === first ? (first.startsWith("-") ? by : `-${by}`) : first;
    return html`<span role="columnheader" key=${title} class=${kind} aria-sort=${is ? (sort.startsWith("-") ? "descending" : "ascending") : undefined}>
      ${first === null ? title : html`<button class="quiet" aria-label=${`Sort by ${title}`} onClick=${() => show({ sort: next, at: "" })}>${title}${is ? (sort.startsWith("-") ? " ↓" : " ↑") : ""}</button>`}</span>`;
  };
  return html`<div role="row" class="feature head" aria-rowindex="1">${COLUMNS.map(cell)}</div>`;
}

/** One feature in a line. It is placed by its number, for only some twenty of them are there. */
export function Row({ at, sae, feature, query, isActive, row }) {
  const style = { transform: `translateY(${at * row}px)` };
  const common = { role: "row", id: `row-${at}`, "aria-rowindex": at + 2, "aria-selected": isActive ? "true" : undefined, style };
  if (!feature) return html`<div ...${common} class="feature waits"><span role="gridcell"></span><span role="gridcell">…</span></div>`;
  const { index, label, score, dead, line, tokens, starred, max } = feature;
  // The place in the list goes along, also for the way back; the row itself takes the click.
  const here = { ...query, at };
  const open = (event) => {
    show({ at });
    if (!event.target.closest("a") && getSelection().isCollapsed) go("features", [sae.name, index], here);
  };
  return html`<div ...${common} class=${isActive ? "feature active" : "feature"} onClick=${open}>
    <span role="gridcell" class="index"><a tabindex="-1" href=${place("features", [sae.name, index], here)}>${index}</a>${starred && html` <span role="img" aria-label="starred" title="starred">★</span>`}</span>
    <span role="gridcell" class="called">${label
      ? html`<span class="text" title=${label.text}>${label.text}</span> <span class="by">${label.provider}${label.status === "accepted" ? " ✓" : ""}</span>`
      : html`<span class="faint text">${dead ? "dead" : tokens.join(" ")}</span>`}</span>
    <span role="gridcell" class="figure">${number(score, 2)}</span>
    <span role="gridcell" class="figure fires">${dead ? "—" : html`<span class="spark" aria-hidden="true" style=${{ "--part": spark(feature.density) }}></span>${density(feature.density)}`}</span>
    <span role="gridcell" class="figure">${dead ? "—" : number(max, 1)}</span>
    <span role="gridcell" class="example">${line && html`<${Line} texts=${line.texts} values=${line.values} most=${max} peak=${line.peak} />`}</span>
  </div>`;
}
