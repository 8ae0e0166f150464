// Which rows of a long list are drawn, and which pages of it are asked for. Pure.

export const PAGE = 50; // rows of a request

/** Rows `first` to `last` (exclusive) are in sight of a list that is scrolled by `top`; some more are drawn around. */
export function inSight(top, height, rowHeight, total, around = 8) {
  const first = Math.max(Math.floor(top / rowHeight) - around, 0);
  const last = Math.min(Math.ceil((top + height) / rowHeight) + around, total);
  return { first: Math.min(first, last), last };
}

/** Numbers of the pages that hold rows `first` to `last`. */
export function pagesOf(first, last) {
  const pages = [];
  for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) pages.push(page);
  return pages;
}

/** How far to scroll, that row `at` is in sight of what is `height` high, of which `above` is covered: no further than needed. */
export function broughtInto(top, height, rowHeight, at, above = 0) {
  const [begin, end] = [at * rowHeight, (at + 1) * rowHeight];
  if (begin < top) return begin;
  return end > top + height - above ? end - height + above : top;
}
