// The figures of an evaluation: their names, digits and meaning, and how they lie on a line. Pure.

import { UNKNOWN, known, number } from "./format.js";

const one = (x) => number(x, 1);

/** 0.9775 → "97.8%": a share whose interval is narrower than one in a hundred. */
export const share = (x) => (known(x) ? `${(100 * x).toFixed(1)}%` : UNKNOWN);

/**
 * In groups: key, name, how it is written, what it means.
 * @type {[title: string, figures: [key: string, name: string, show: (x: any) => string, means: string][]][]}
 */
export const GROUPS = [
  ["What is rebuilt", [
    ["fvu", "FVU", number, "how much of the activations is lost: 0 is nothing, 1 as if only their mean were known"],
    ["fvu_first", "FVU, first token", number, "the same over the first token of each window alone"],
    ["fvu_later", "FVU, later tokens", number, "the same over all the others"],
    ["cosine", "Cosine", number, "between what is rebuilt and what was read; 1 is the same direction"],
    ["l2_ratio", "Norm", number, "of what is rebuilt, as a share of what it should be; below 0.9 it shrinks"],
    ["bias", "Reconstruction bias", number, "1 is none; more is a norm that is too large all over"],
  ]],
  ["What it costs the model", [
    ["ce_delta", "ΔCE, nats", number, "how much worse the model predicts the next token from what is rebuilt"],
    ["ce_recovered_mean", "Recovered, of the mean", share, "how much of the loss that the mean in its place costs is won back"],
    ["ce_recovered_zero", "Recovered, of zeros", share, "the same of what zeros cost"],
    ["kl", "KL, nats", number, "how far the model's prediction moves"],
    ["ce_clean", "Loss of the model itself", number, "in nats, without the SAE"],
  ]],
  ["How sparse it is", [
    ["l0", "L0", one, "latents that fire on a token, on average"],
    ["l1", "L1", one, "sum of the latents of a token, on average"],
    ["alive", "Alive", share, "latents that fired at least once on this text"],
    ["dead", "Dead", share, "latents that never fired on it"],
    ["dense", "Dense", share, "latents that fire on more than a tenth of the tokens, which seldom mean one thing"],
    ["dense_mass", "Firings of dense latents", share, "their share of all that fires"],
  ]],
  ["How its directions lie", [
    ["decoder_cosine", "Nearest decoder row", number, "cosine of a latent's direction with the nearest other one"],
    ["decoder_copies", "Decoder copies", share, "latents whose nearest other direction is at 0.9 or more"],
    ["encoder_cosine", "Nearest encoder column", number, "the same of what latents look for"],
    ["encoder_copies", "Encoder copies", share, "of those at 0.9 or more"],
    ["encoder_decoder", "Encoder with decoder", number, "cosine of what a latent looks for with what it writes"],
  ]],
];

/** What comparing shows of each SAE. */
export const COMPARED = ["fvu", "l0", "ce_delta", "kl", "cosine", "ce_recovered_mean", "ce_recovered_zero", "l2_ratio", "alive", "dense"];

const BY_KEY = new Map(GROUPS.flatMap(([, figures]) => figures.map((figure) => [figure[0], figure])));

/** Of a key: `[key, name, how it is written, what it means]`. */
export const figure = (key) => BY_KEY.get(key);

/** "0.119 to 0.128", an interval as `show` writes it; a dash where there is none. */
export const between = (found, show) => (found?.interval ? found.interval.map((end) => show(end)).join(" to ") : "—");

/** From where to where a line must go that all figures, `{value, interval}`, lie on, with some room: `[low, high]`; it begins at `from` where none is below. */
export function spanOf(figures, from) {
  const ends = figures.flatMap((found) => (found && known(found.value) ? [found.value, ...(found.interval ?? [])] : []));
  if (!ends.length) return [0, 1];
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const room = (most - least || Math.abs(most) || 1) * 0.08;
  return [from <= least ? from : least - room, most + room];
}

/** Where on a line from `low` to `high` a value lies, in per cent. */
export const placed = (value, [low, high]) => (100 * (value - low)) / (high - low);

/** What costs nothing to beat, beside a figure of an evaluation: `[name, figure]` each; none for a transcoder. */
export function baselines(evaluation, key) {
  const { figures, components, directions } = evaluation;
  const beside = {
    fvu: [[`${components} principal components`, figures.pca_fvu], [`${directions} random directions`, figures.random_fvu]],
    ce_delta: [["the mean in its place", figures.ce_mean], ["zeros in its place", figures.ce_zero]],
  };
  return (beside[key] ?? []).filter(([, found]) => known(found?.value));
}
