// Numbers and times as people read them, in the command line's words; a dash for what is not known. Pure.

export const UNKNOWN = "—";
const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const known = (x) => typeof x === "number" && Number.isFinite(x);

/** 2048 → "2,048" */
export const count = (n) => (known(n) ? GROUPED.format(n) : UNKNOWN);

/** 0.123456 → "0.123" */
export const number = (x, digits = 3) => (known(x) ? x.toFixed(digits) : UNKNOWN);

/** 0.875 → "88%", 0.0123 → "1.2%" */
export function share(x) {
  if (!known(x)) return UNKNOWN;
  return `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)}%`;
}

/** 12_345_678 → "12.3 MB" */
export function size(bytes) {
  if (!known(bytes)) return UNKNOWN;
  let n = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (Math.abs(n) < 1000) return `${n.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} TB`;
}

/** "12.3 MB", "1,228,800 tokens" */
export const amount = (n, unit) => (unit === "bytes" ? size(n) : `${count(n)} ${unit}`.trim());

/** "5.0 of 12.3 MB", "1,000 of 2,000 tokens" */
export function amountOf(done, total, unit) {
  if (unit !== "bytes") return `${count(done)} of ${amount(total, unit)}`;
  const [of, same] = [size(total), size(done)];
  return `${same.split(" ")[1] === of.split(" ")[1] ? same.split(" ")[0] : same} of ${of}`;
}

/** Exactly how long something took: "0.4 s", "12 s", "3 min 05 s", "2 h 10 min" */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** The same of what goes on: it counts whole seconds. */
export const elapsed = (seconds) => (seconds < 10 ? `${Math.floor(seconds)} s` : duration(seconds));

/** How long something may take yet, no more exact than it is known: "a few seconds", "about 40 s", "about 2 h 10 min" */
export function about(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 10) return "a few seconds";
  if (seconds < 55) return `about ${10 * Math.round(seconds / 10)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `about ${minutes} min`;
  const tens = 10 * Math.round(minutes / 10);
  return `about ${Math.floor(tens / 60)} h${tens % 60 ? ` ${tens % 60} min` : ""}`;
}

/** @type {[string, number][]} */
const LENGTHS = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** How long ago an ISO moment was at `at` (ms): "now", "12 seconds ago", "3 hours ago" */
export function ago(iso, at) {
  if (!iso) return UNKNOWN;
  const seconds = Math.floor((at - Date.parse(iso)) / 1000);
  for (const [unit, length] of LENGTHS) {
    const n = Math.floor(seconds / length);
    if (n >= 1) return `${n} ${unit}${n > 1 ? "s" : ""} ago`;
  }
  return "now";
}

/** Seconds between two ISO moments; null when one is missing. */
export const between = (from, to) => (from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : null);

/** Characters as the studio counts them: an emoji is one, though two here. */
export const characters = (text) => [...text].length;

/** Parts of a line, without those that are empty. */
export const joined = (parts) => parts.filter(Boolean).join(" · ");

/** A moment (ms) on the clock of the reader: "14:03:20" */
export const timeOfDay = (ms) => new Date(ms).toLocaleTimeString("en-GB");
