// Which rows of a long list are drawn, and which pages of it are asked for. Pure.

export const PAGE = 100; // rows of a request

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
