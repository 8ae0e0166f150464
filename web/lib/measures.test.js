import assert from "node:assert/strict";
import test from "node:test";
import { mean, measured, measuresAfter, paceAfter, rate } from "./measures.js";

test("each SAE has its own values, and what several have is shown as their mean", () => {
  let measures = measuresAfter(undefined, { step: 1, sae: "a", values: { fvu: 0.5, eval_fvu: 0.4 } });
  assert.equal(mean(measures, "fvu"), 0.5);
  measures = measuresAfter(measures, { step: 2, sae: "b", values: { fvu: 0.25 } });
  measures = measuresAfter(measures, { step: 2, sae: null, values: { tokens_per_s: 7 } });
  assert.deepEqual([measures.step, measured(measures)], [2, 2]);
  assert.deepEqual(["fvu", "eval_fvu", "tokens_per_s", "kl"].map((name) => mean(measures, name)), [0.375, 0.4, 7, null]);
  measures = measuresAfter(measures, { step: 3, sae: "b", values: { fvu: null } });
  assert.equal(mean(measures, "fvu"), 0.5);
});

test("of what has not been measured nothing is known", () => {
  assert.deepEqual([measured(undefined), mean(undefined, "fvu")], [0, null]);
  assert.equal(measured(measuresAfter(undefined, { step: 1, values: { fvu: 1 } })), 0);
});

const heard = (points, stage = "train") => points.reduce((pace, [at, done]) => paceAfter(pace, { stage, done }, at), undefined);

test("a rate is what was done over the time it took", () => {
  assert.equal(rate(heard([[0, 100], [1000, 150], [2000, 300]])), 100);
});

test("nothing is said of a moment, or of what stands still", () => {
  assert.equal(rate(undefined), null);
  assert.equal(rate(heard([[0, 100]])), null);
  assert.equal(rate(heard([[0, 100], [999, 200]])), null);
  assert.equal(rate(heard([[0, 100], [5000, 100]])), null);
});

test("only the last half minute counts", () => {
  assert.equal(rate(heard([[0, 0], [20_000, 2], [40_000, 102], [50_000, 152]])), 5);
});

test("a new stage, or one that begins again after a restart, is measured anew", () => {
  const trained = heard([[0, 0], [2000, 200]]);
  assert.equal(rate(paceAfter(trained, { stage: "measure", done: 5 }, 3000)), null);
  assert.equal(rate(paceAfter(trained, { stage: "train", done: 150 }, 3000)), null);
});
