import assert from "node:assert/strict";
import test from "node:test";
import { differences, inTokens, samples, warnings } from "./steered.js";
import { compared } from "./words.js";

test("marks are cut at the tokens' ends, and nothing is lost", () => {
  const tokens = ["imp", "ort", " os\n", "", " now"];
  const found = inTokens(tokens, compared(tokens.join(""), "import sys now"));
  assert.deepEqual(found.map((parts) => parts.map(({ text }) => text).join("")), tokens);
  assert.deepEqual(found.map((parts) => parts.filter(({ changed }) => changed).map(({ text }) => text).join("")), ["", "", "os", "", ""]);
  assert.deepEqual(inTokens(["a"], []), [[]]);
});

const strength = { sae: "s", feature: 7, op: "add", strength: 3, scope: "all" };
const baseline = { perplexity: 5, repetition: 0.1 };
const text = (fields) => ({ strengths: [strength], no_effect: null, kl: 0.4, perplexity: 6, repetition: 0.1, ...fields });
const said = (fields, range = null) => warnings(text(fields), baseline, () => range, "s");

test("what is amiss is said, and nothing where nothing is", () => {
  assert.deepEqual(said({}), []);
  assert.deepEqual(said({ no_effect: [{ sae: "s", feature: 7, reason: "dead", message: "it fires nowhere" }], kl: 0 }), ["7 +3 changed nothing: it fires nowhere."]);
  assert.match(said({ kl: 0.01 })[0], /weak, 0.010 nats/);
  assert.match(said({ repetition: 0.6 })[0], /falls apart: 60% of it repeats .* \(baseline 10%\)/);
  assert.match(said({ perplexity: 90 })[0], /perplexity 90, baseline 5.0/);
  assert.deepEqual(said({ kl: null, perplexity: null, repetition: null }), []);
  assert.deepEqual(said({ kl: 0, strengths: [{ ...strength, strength: 0 }] }), []);
  const range = { kl: { 0.1: { low: -1, high: 1 }, 0.5: { low: -1.5, high: 1.5 }, 2: { low: -2, high: 2 } }, breaks: { low: -2, high: 2.5, why: "repetition" } };
  assert.match(said({}, range)[0], /^7 \+3 is where texts fall apart/);
});

test("two runs differ in what was asked and in what they were made with", () => {
  const run = (spec, made) => ({ sae: "s", spec, result: { made } });
  const found = differences(run({ prompt: "a", seed: 1, steering: [{ feature: 7, strength: 1 }] }, { torch: "2" }), run({ prompt: "a", seed: 2, steering: [{ feature: 7, strength: 2 }], sweep: null, rows_at_once: 4 }, { torch: "2", rows_at_once: 2 }));
  assert.deepEqual(found, [["seed", "1", "2"], ["steering", "7 +1", "7 +2"], ["rows_at_once", "—", "2"]]);
});

test("texts go together sample by sample", () => {
  const result = { baselines: [{ sample: 0 }, { sample: 1 }], steered: [{ sample: 0, variant: 0 }, { sample: 0, variant: 1 }, { sample: 1, variant: 0 }] };
  assert.deepEqual(samples(result).map(({ steered }) => steered.length), [2, 1]);
});
