// What a key does in the page, without a modifier and while nobody types. Pure.

const PANELS = [
  ["d", "datasets", "Datasets"],
  ["m", "models", "Models"],
  ["a", "saes", "SAEs"],
  ["t", "training", "Training"],
  ["f", "features", "Features"],
  ["s", "steering", "Steering"],
  ["y", "system", "System"],
  ["j", "jobs", "Jobs"],
];
const SINGLE = [
  ["/", "search", "Search in the panel"],
  ["j", "down", "Next row"],
  ["k", "up", "Previous row"],
  ["n", "first", "What the panel is for: add, train"],
  ["[", "before", "The one before, of what is open"],
  ["]", "after", "The one after"],
  ["?", "keys", "This list"],
];
const WAIT_MS = 1500; // for the letter behind g

/** All keys, as they are listed: `[[keys, what they do], …]`. */
export const KEYS = [
  ...PANELS.map(([letter, , name]) => [["g", letter], name]),
  ...SINGLE.slice(0, 3).map(([key, , does]) => [[key], does]),
  [["Enter"], "Open the row"],
  ...SINGLE.slice(3).map(([key, , does]) => [[key], does]),
  [["Esc"], "Close what is open"],
];

/**
 * What a key means at a time (ms), `since` being when `g` was pressed, null when it was not: `{does, since}`, in which
 * `does` is ["panel", its name], [what else is to be done] or null.
 * @param {string} key
 * @param {number} at
 * @param {number | null} since
 * @returns {{does: string[] | null, since: number | null}}
 */
export function meaning(key, at, since) {
  if (since !== null && at - since <= WAIT_MS) {
    const found = PANELS.find(([letter]) => letter === key);
    return { does: found ? ["panel", found[1]] : null, since: null };
  }
  if (key === "g") return { does: null, since: at };
  const found = SINGLE.find(([one]) => one === key);
  return { does: found ? [found[1]] : null, since: null };
}

/**
 * The place, among `total` rows, that is one further (1) or back (-1) than `at`; -1 is none, which leads to the first.
 * @param {number} at
 * @param {1 | -1} way
 * @param {number} total
 */
export const step = (at, way, total) => (at < 0 ? 0 : Math.min(Math.max(at + way, 0), total - 1));
