import assert from "node:assert/strict";
import test from "node:test";
import { paceAfter, rate } from "./pace.js";

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
