// What a browser remembers of a person's choices. One that keeps nothing forgets them with the page.

/** What was kept under a name; null when nothing was. */
export function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keep a text under a name; null forgets it. */
export function keep(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // it holds until the page is left
  }
}
