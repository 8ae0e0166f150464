// The place that the page shows, as a signal; the browser's back and reload work because the address says all of it.

import { signal } from "@preact/signals";
import { parse, place } from "./lib/route.js";

export const route = signal(parse(location.hash));

addEventListener("hashchange", () => (route.value = parse(location.hash)));

let isNew = false; // the place is come to by a link, not by the browser's back
addEventListener("click", ({ target }) => {
  if (target instanceof Element && target.closest('a[href^="#/"]')) isNew = true;
});

/** What is come to by a link begins at its top; by the browser's back, where it was left. */
export function arrived() {
  if (isNew) scrollTo(0, 0);
  isNew = false;
}

/** Go to a place, as a link to it does. */
export function go(panel, open = [], query = {}) {
  isNew = true;
  location.hash = place(panel, open, query);
}

/** Go where a link leads, at once: the next key may come before the browser says that the place is another. */
export function follow(link) {
  isNew = true;
  location.hash = link.hash;
  route.value = parse(location.hash);
}

/** Show the place that is shown otherwise, without a step for the browser's back. */
export function show(query) {
  const { panel, open, query: was } = route.peek();
  history.replaceState(null, "", place(panel, open, { ...was, ...query }));
  route.value = parse(location.hash);
}
