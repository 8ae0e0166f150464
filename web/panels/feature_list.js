import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { inWords, terms } from "../lib/feature_filter.js";
import { listed, rowAt } from "../lib/feature_words.js";
import { KeptPages } from "../lib/kept_pages.js";
import { around } from "../lib/token_runs.js";
import { PAGE, broughtInto, inSight } from "../lib/virtual.js";
import { go, show } from "../route.js";
import { labelled, phase } from "../state.js";
import { html } from "../ui/html.js";
import { Head, Row } from "./feature_row.js";

const ANEW_MS = 1000; // between two looks at labels that come
const tops = new Map(); // list → how far it was scrolled when it was left

/**
 * A table of which only what is in sight is drawn and asked for. Rows are recycled: one that leaves at the top comes in
 * at the bottom; one of which nothing has changed is not drawn anew.
 */
export function FeatureList({ sae, query, found, setFound }) {
  const grid = useRef(null);
  const [size, setSize] = useState({ row: 36, height: 0 });
  const [sight, setSight] = useState({ first: 0, last: 0 });
  const [, draw] = useState(0);
  const asked = listed(query).toString();
  const key = `${sae.name}?${asked}`;
  const total = found.total ?? 0;
  const active = Math.min(rowAt(query), total - 1);
  const pages = useMemo(() => new KeptPages(askFor(sae, asked, setFound), () => draw((n) => n + 1), refusedTo(setFound)), [key]);
  useEffect(() => {
    pages.look(0, 1);
    return () => pages.end();
  }, [pages]);
  useLabelsAsTheyCome(sae, pages);
  useSize(grid, setSize);
  const look = () => {
    const { scrollTop } = grid.current;
    tops.set(key, scrollTop);
    const { first, last } = inSight(scrollTop, size.height, size.row, total);
    if (first !== sight.first || last !== sight.last) setSight({ first, last });
    if (last > first) pages.look(first, last);
  };
  useEffect(() => {
    if (total > 0 && size.height > 0) {
      const top = key === grid.current.dataset.of ? grid.current.scrollTop : (tops.get(key) ?? 0);
      grid.current.dataset.of = key;
      grid.current.scrollTop = active < 0 ? top : broughtInto(top, size.height, size.row, active, size.row);
      look();
    }
  }, [key, total, size.height, size.row, active]);
  const drawn = useRows(pages, sight, { sae, query, active, row: size.row });
  const focused = ({ target }) => {
    const row = target.closest("[role=row]")?.ariaRowIndex;
    if (row > 1) show({ at: row - 2 });
  };
  return html`<div class="features" onFocusIn=${focused} onKeyDown=${(event) => moved(event, { sae, query, active, total, pages, size })}>
    <div class="sight" ref=${grid} role="grid" aria-label="Features" aria-rowcount=${total + 1} aria-activedescendant=${active < 0 ? undefined : `row-${active}`}
      aria-busy=${found.total === null} tabindex="0" onScroll=${look}>
      <${Head} sort=${query.sort ?? "-max"} />
      <div class="all" role="rowgroup" style=${{ height: `${total * size.row}px` }}>${drawn}</div>
    </div>
    ${found.total === 0 && html`<${NoneSo} query=${query} />`}
  </div>`;
}

/** Rows, each kept as it was drawn for as long as what it shows is the same. */
function useRows(pages, { first, last }, about) {
  const before = useRef(new Map());
  const slots = Math.max(last - first, 1);
  const drawn = new Map();
  for (let at = first; at < last; at++) {
    const feature = pages.row(at);
    const isActive = at === about.active;
    const was = before.current.get(at);
    const same = was && was.feature === feature && was.isActive === isActive && was.slots === slots && was.query === about.query && was.row === about.row;
    drawn.set(at, same ? was : { feature, isActive, slots, query: about.query, row: about.row,
      vnode: html`<${Row} key=${at % slots} at=${at} feature=${feature} isActive=${isActive} ...${about} />` });
  }
  before.current = drawn;
  return [...drawn.values()].map((one) => one.vnode);
}

/** Asks for a page of the list; of an example only what fits in a line is kept. */
const askFor = (sae, asked, setFound) => async (page, signal) => {
  const { features, total } = await get(`/api/saes/${sae.id}/features?${asked}&limit=${PAGE}&cursor=${page * PAGE}&example=true`, signal);
  setFound((was) => (was.total === total && !was.failed ? was : { total }));
  return features.map(({ example, ...one }) => ({ ...one, line: example && around(example) }));
};

const refusedTo = (setFound) => (error) => setFound((was) => ({ ...was, failed: said(error), isMissing: [404, 409].includes(error.status) }));

/** Labels and scores that come are shown, also after the line to the studio was lost. */
function useLabelsAsTheyCome(sae, pages) {
  const heard = `${labelled.value.get(sae.name) ?? 0} ${phase.value}`;
  const [first, waits] = [useRef(heard), useRef(0)];
  useEffect(() => {
    if (first.current === heard || waits.current) return;
    waits.current = setTimeout(() => {
      waits.current = 0;
      pages.renew();
    }, ANEW_MS);
  }, [heard, pages]);
  useEffect(() => () => {
    clearTimeout(waits.current);
    waits.current = 0;
  }, [pages]);
}

/** How high the list is, and a row of it, which a narrow page makes higher. */
function useSize(grid, setSize) {
  useEffect(() => {
    const watch = new ResizeObserver(([{ target }]) => {
      if (!target.isConnected) return;
      const row = Number.parseInt(getComputedStyle(target).getPropertyValue("--row"), 10) || 36;
      setSize((was) => (was.row === row && was.height === target.clientHeight ? was : { row, height: target.clientHeight }));
    });
    watch.observe(grid.current);
    return () => watch.disconnect();
  }, []);
}

/** Keys of the list: they move the row that is marked, and open it. A number goes into the field that opens one. */
function moved(event, { sae, query, active, total, pages, size }) {
  if (event.ctrlKey || event.altKey || event.metaKey || total === 0) return;
  const page = Math.max(Math.floor(size.height / size.row) - 2, 1);
  const ways = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -total, End: total };
  const way = ways[event.key];
  if (/^[0-9]$/.test(event.key)) {
    /** @type {HTMLElement | null} */ (document.querySelector("input[name=number]"))?.focus(); // which then takes the digit
    return;
  }
  const feature = pages.row(active);
  if (event.key === "Enter" && event.target.closest("a, button") === null && feature) {
    go("features", [sae.name, feature.index], query);
  } else if (way !== undefined) {
    event.currentTarget.querySelector("[role=grid]").focus();
    show({ at: Math.min(Math.max(active < 0 ? (way < 0 ? 0 : way === total ? total - 1 : 0) : active + way, 0), total - 1) });
  } else return;
  event.preventDefault();
}

/** Nothing is left: what it is that leaves nothing, and the way out. */
function NoneSo({ query }) {
  const why = [query.q && `whose label has “${query.q}”`, ...terms(query.filter ?? "").map(inWords)].filter(Boolean);
  return html`<div class="empty" role="status"><p>No feature is ${why.join(", and ") || "here"}.</p>
    <button class="first" onClick=${() => show({ q: "", filter: "", at: "" })}>Clear</button></div>`;
}
