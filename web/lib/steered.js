// What is told of steered texts: which of their tokens are other ones, and what is amiss, in sentences. Pure.

import { bandOf } from "./bands.js";
import { saidEdit, saidEdits } from "./edits.js";
import { number, share } from "./format.js";

const WEAK = 0.05; // nats a token
const NEW_SHARE = 0.5; // fewer than half of the baseline's new 4-grams are new: it repeats itself
const UNLIKELY = 10; // times the baseline's perplexity: the model would hardly write it

/**
 * Pieces of a text, cut anew at the ends of its tokens.
 * @param {string[]} tokens which make up the same text
 * @param {{text: string, changed: boolean}[]} pieces
 * @returns {{text: string, changed: boolean}[][]} of each token
 */
export function inTokens(tokens, pieces) {
  let [at, used] = [0, 0];
  return tokens.map((token) => {
    const found = [];
    for (let left = token.length; left > 0 && at < pieces.length; ) {
      const text = pieces[at].text.slice(used, used + left);
      if (text) found.push({ text, changed: pieces[at].changed });
      left -= text.length;
      used += text.length;
      if (used >= pieces[at].text.length) [at, used] = [at + 1, 0];
    }
    return found;
  });
}

/**
 * What is wrong with a steered text, or next to nothing, in sentences.
 * @param {object} one the text, as the API gives it
 * @param {object} baseline the one of the same sample
 * @param {(edit: object) => import("./bands.js").Range | null} rangeOf what is known of a feature's strengths
 * @param {string} sae whose name needs not be said
 */
export function warnings(one, baseline, rangeOf, sae) {
  const said = (one.no_effect ?? []).map((none) => `${saidEdit(edited(one, none), sae)} changed nothing: ${none.message}.`);
  const moved = one.strengths.some(({ op, strength }) => op === "ablate" || strength !== (op === "scale" ? 1 : 0));
  if (moved && !said.length && one.kl !== null && one.kl < WEAK) said.push(`The effect is weak, ${number(one.kl, 3)} nats a token: raise the strength.`);
  if (one.repetition !== null && baseline.repetition !== null && 1 - one.repetition < NEW_SHARE * (1 - baseline.repetition)) {
    said.push(`It falls apart: ${share(one.repetition)} of it repeats what was there before (baseline ${share(baseline.repetition)}).`);
  } else if (one.perplexity > UNLIKELY * baseline.perplexity) {
    said.push(`It falls apart: the model without steering would hardly write it (perplexity ${number(one.perplexity, 0)}, baseline ${number(baseline.perplexity, 1)}).`);
  }
  const beyond = one.strengths.filter((edit) => edit.op === "add" && edit.strength && rangeOf(edit) && bandOf(rangeOf(edit), edit.strength) === "apart");
  if (beyond.length) said.push(`${saidEdits(beyond, sae)} is where texts fall apart, as calibration found.`);
  return said;
}

const edited = (one, none) => one.strengths.find(({ sae, feature }) => sae === none.sae && feature === none.feature) ?? { ...none, strength: null };

/** In what two runs differ: `[what, of one, of the other]`, as it is said. */
export function differences(a, b) {
  const found = new Map(); // of what is asked and made, what was made
  for (const [one, other] of [[a.spec, b.spec], [a.result.made, b.result.made]]) {
    for (const name of Object.keys({ ...one, ...other })) {
      if (JSON.stringify(one[name] ?? null) !== JSON.stringify(other[name] ?? null)) found.set(name, [name, plain(one[name], a.sae), plain(other[name], b.sae)]);
    }
  }
  return [...found.values()];
}

function plain(value, sae) {
  if (value === null || value === undefined) return "—";
  if (Array.isArray(value) && value[0]?.feature !== undefined) return saidEdits(value.map((one) => ({ ...one, sae: one.sae ?? sae })), sae);
  if (Array.isArray(value) && value[0]?.role) return value.map(({ role, content }) => `${role}: ${content}`).join("\n");
  if (Array.isArray(value)) return value.join(", ").replaceAll("-", "−");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The steered texts of a result, sample by sample: `{baseline, steered}` each. */
export const samples = (result) => result.baselines.map((baseline) => ({ baseline, steered: result.steered.filter(({ sample }) => sample === baseline.sample) }));
