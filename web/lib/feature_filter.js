// The filter of a list of features, in the language of `mistudio feature list --filter`: read, changed, said in words. Pure.

import { density } from "./feature_words.js";

const TERM = /\s*([a-z]+)(?:([:<>])("(?:[^"\\]|\\.)*"|[^\s"]\S*))?(?=\s|$)/y;
const FLAGS = ["alive", "dead", "labelled", "unlabelled", "failed", "starred"];
const WORDS = { unlabelled: "without a label", failed: "whose label failed" };

/** @typedef {{text: string, name?: string, sign?: string, value?: any}} Term a piece that is none has its text alone */

/** The terms of a filter. @returns {Term[]} */
export function terms(filter) {
  const found = [];
  for (TERM.lastIndex = 0; TERM.lastIndex < filter.trimEnd().length; ) {
    const begin = TERM.lastIndex;
    const match = TERM.exec(filter);
    if (!match) return [...found, { text: filter.slice(begin).trim() }];
    const [whole, name, sign = "", value = ""] = match;
    found.push({ text: whole.trim(), name, sign, value: unquoted(value) });
  }
  return found;
}

function unquoted(value) {
  try {
    return value.startsWith('"') ? JSON.parse(value) : value;
  } catch {
    return value;
  }
}

const joined = (some) => some.map((one) => one.text).join(" ");

/** The value of the term `name` `sign`, "" where there is none. */
export const valueOf = (filter, name, sign) => terms(filter).find((one) => one.name === name && one.sign === sign)?.value ?? "";

/** The filter with that term, in place of one that there was; without it when the value is empty. */
export function withTerm(filter, name, sign, value) {
  const rest = terms(filter).filter((one) => one.name !== name || one.sign !== sign);
  if (value === "" || value === null || value === undefined) return joined(rest);
  const text = sign === ":" ? JSON.stringify(String(value)) : value;
  return joined([...rest, { text: `${name}${sign}${text}` }]);
}

/** "alive unlabelled": which features by what they are. */
export const flags = (filter) => joined(terms(filter).filter((one) => FLAGS.includes(one.name)));

export const withFlags = (filter, wanted) => joined([{ text: wanted }, ...terms(filter).filter((one) => !FLAGS.includes(one.name))].filter((one) => one.text));

export const without = (filter, text) => joined(terms(filter).filter((one) => one.text !== text));

/** A term as it is said: "fires on less than 1%", "in the list mine". @param {Term} term */
export function inWords({ text, name, sign, value }) {
  if (sign === "") return WORDS[name] ?? text;
  const than = sign === "<" ? "below" : "above";
  const number = Number(value);
  if (name === "density") return `fires on ${sign === "<" ? "less" : "more"} than ${density(number)}`;
  if (name === "max" || name === "score") return `${name === "max" ? "maximum" : "score"} ${than} ${number}`;
  return { list: `in the list ${value}`, provider: `labelled by ${value}`, token: `fires on “${value}”`, index: "chosen by number" }[name] ?? text;
}
