// Where in the page somebody is: the part of its address behind "#". Pure.

/** The panels, in the order in which they are used. */
export const PANELS = ["datasets", "models", "saes", "training", "features", "steering", "system"];
const PLACES = new Set([...PANELS, "jobs"]);

/**
 * "#/features/pico/12?sort=-density" → {panel: "features", open: ["pico", "12"], query: {sort: "-density"}}.
 * What is no panel is the first one.
 */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const [panel, ...open] = path.split("/").filter(Boolean).map(decoded);
  if (!PLACES.has(panel)) return { panel: PANELS[0], open: [], query: {} };
  return { panel, open, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** The other way: what an `href` says. What is null or empty in `query` is left out. */
export function place(panel, open = [], query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const asked = new URLSearchParams(kept).toString();
  return `#/${[panel, ...open].map(encodeURIComponent).join("/")}${asked && `?${asked}`}`;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % that somebody typed
  }
}
