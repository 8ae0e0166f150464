// What is said of a feature, in few characters. Pure.

import { known, UNKNOWN } from "./format.js";

const LEAST = -6; // the density that has no bar, as a power of ten

/** A share of tokens, however small: 0.21 → "21%", 0.00881 → "0.88%", 0.0000123 → "0.0012%" */
export function density(share) {
  if (!known(share)) return UNKNOWN;
  if (share === 0) return "0%";
  const percent = 100 * share;
  return `${percent >= 10 ? percent.toFixed(0) : Number(percent.toPrecision(2)).toFixed(Math.max(1 - Math.floor(Math.log10(percent)), 0))}%`;
}

/** The same as the length of a bar, 0 to 1, by its logarithm from one in a million to all. */
export const spark = (share) => (share > 0 ? Math.max(1 - Math.log10(share) / LEAST, 0.02) : 0);

/** Who said a label: "a person", "its tokens", "ollama, qwen3:4b" */
export function sayer({ provider, model }) {
  if (provider === "person") return "a person";
  return provider === "tokens" ? "its tokens" : [provider, model].filter(Boolean).join(", ");
}

/** The row of a list that an address names; -1 where it names none. */
export const rowAt = (query) => (/^\d+$/.test(query.at ?? "") ? Number(query.at) : -1);

/** A place in a list that is sorted and filtered: what to ask of the studio. */
export function listed({ sort, filter, q }) {
  return new URLSearchParams(Object.entries({ sort: sort || "-max", filter: filter ?? "", q: q ?? "" }).filter(([, value]) => value));
}
