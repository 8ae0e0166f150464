// What is done to features, as an address and a person say it: "12:1.5,7:ablate,other/3:clamp=2@generated,9:-1!". Pure.

import { quoted } from "./training_spec.js";

/**
 * @typedef {object} Edit
 * @property {string} sae name of the SAE that the feature is of
 * @property {number} feature
 * @property {"add" | "clamp" | "scale" | "ablate"} op
 * @property {number | null} strength null: not chosen yet, so 1 until calibration has found a better one
 * @property {string} scope all, generated, active or from:N
 * @property {boolean} off left out for a moment
 */

const SHAPE = /^(?:([A-Za-z0-9][\w.-]*)\/)?(\d{1,10})(?::([^@!]*))?(?:@([a-z]+(?::\d+)?))?(!)?$/;
const OPS = ["clamp", "scale", "ablate"];

/** The strength of an edit that does nothing. */
export const neutral = (op) => (op === "scale" ? 1 : 0);

/** One edit for each feature of an SAE. */
export const keyOf = ({ sae, feature }) => `${sae}/${feature}`;

/** @returns {Edit[]} those of an address; what is none is left out, as is what comes twice. `sae`: of those that name none. */
export function editsOf(text, sae) {
  const found = String(text ?? "").split(",").map((one) => parsed(one.trim(), sae)).filter(Boolean);
  return found.filter((one, at) => found.findIndex((other) => keyOf(other) === keyOf(one)) === at);
}

function parsed(text, own) {
  const [whole, sae = own, feature, how = "", scope = "all", off] = SHAPE.exec(text) ?? [];
  if (whole === undefined) return null;
  const [word, value = ""] = how.split("=");
  const op = /** @type {Edit["op"]} */ (OPS.includes(word) ? word : "add");
  const number = op === "add" ? word : value;
  const strength = number === "" || !Number.isFinite(Number(number)) ? null : Number(number);
  return { sae, feature: Number(feature), op, strength: op === "ablate" ? 1 : strength, scope, off: Boolean(off) };
}

/** The other way; `sae` is not named. @param {Edit[]} edits @param {string} sae */
export function written(edits, sae) {
  return edits.map((one) => {
    const how = one.op === "ablate" ? ":ablate" : one.strength === null ? "" : one.op === "add" ? `:${one.strength}` : `:${one.op}=${one.strength}`;
    return `${one.sae === sae ? "" : `${one.sae}/`}${one.feature}${how}${one.scope === "all" ? "" : `@${one.scope}`}${one.off ? "!" : ""}`;
  }).join(",");
}

/** As the API takes those that are on. @param {Edit[]} edits */
export const asked = (edits) =>
  edits.filter(({ off }) => !off).map(({ sae, feature, op, strength, scope }) => ({ sae, feature, op, strength: op === "ablate" ? 1 : strength ?? 1, scope }));

/** As they are of a run or a profile. @returns {Edit[]} */
export const editsFrom = (steering, sae) =>
  steering.map((one) => ({ sae: one.sae ?? sae, feature: one.feature, op: one.op ?? "add", strength: one.strength ?? 1, scope: one.scope ?? "all", off: false }));

const signed = (x) => (x > 0 ? `+${short(x)}` : short(x).replace("-", "−"));
const short = (x) => String(Number((x + 0).toPrecision(3)));

/** What is done to a feature, in a few characters: "+1.5", "clamp 2", "× 3", "ablate". */
export function deed({ op = "add", strength }) {
  if (op === "ablate") return "ablate";
  if (strength === null) return "…";
  return op === "add" ? signed(strength) : op === "clamp" ? `clamp ${short(strength)}` : `× ${short(strength)}`;
}

/** "12 +1.5", "12 +1.5 (generated)"; the SAE stands before it unless that is `sae`. */
export const saidEdit = (one, sae) =>
  `${one.sae && one.sae !== sae ? `${one.sae}/` : ""}${one.feature} ${deed(one)}${(one.scope ?? "all") === "all" ? "" : ` (${one.scope})`}`;

export const saidEdits = (edits, sae) => edits.map((one) => saidEdit(one, sae)).join(", ");

/**
 * The line for the terminal that writes the same; null when it has none, for there one scope is that of all edits.
 * @param {Edit[]} edits @param {Record<string, string | number>} sampling what is to be said of it
 */
export function lineOf(sae, prompt, edits, sampling) {
  const on = edits.filter(({ off }) => !off);
  const [scope = "all", ...others] = new Set(on.map((one) => one.scope));
  if (others.length) return null;
  const features = on.map((one) => `-f ${written([{ ...one, scope: "all" }], sae)}`);
  const options = Object.entries({ ...(scope === "all" ? {} : { scope }), ...sampling }).map(([name, value]) => `--${name.replaceAll("_", "-")}=${quoted(String(value))}`);
  return ["mistudio steer", sae, quoted(prompt), ...features, ...options].join(" ");
}

/** In words what an edit does to its feature: amplified, suppressed, or what else. @param {Edit} edit */
export function word({ op, strength }) {
  if (op === "ablate") return "ablated";
  if (strength === null) return "";
  if (op === "clamp") return "held";
  const by = strength - neutral(op);
  return by === 0 ? "as it is" : by > 0 ? "amplified" : op === "scale" && strength >= 0 ? "weakened" : "suppressed";
}
