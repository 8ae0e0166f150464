import assert from "node:assert/strict";
import { test } from "node:test";
import { COMPARED, GROUPS, baselines, between, figure, placed, spanOf } from "./figures.js";
import { number } from "./format.js";

test("every figure is there once and says what it means", () => {
  const keys = GROUPS.flatMap(([, figures]) => figures.map(([key]) => key));
  assert.equal(new Set(keys).size, keys.length);
  assert.ok(COMPARED.every((key) => figure(key)[3]));
});

test("a line holds all figures with their intervals", () => {
  const [low, high] = spanOf([{ value: 1, interval: [0.5, 1.5] }, { value: 2, interval: null }, null, { value: null }]);
  assert.ok(low < 0.5 && high > 2);
  assert.equal(placed(0.5, [0, 2]), 25);
  const alone = spanOf([{ value: 3, interval: null }]);
  assert.ok(alone[0] < 3 && alone[1] > 3);
  assert.deepEqual(spanOf([]), [0, 1]);
});

test("an interval is written as its figure", () => {
  assert.equal(between({ interval: [0.1, 0.25] }, number), "0.100 to 0.250");
  assert.equal(between({ interval: null }, number), "—");
});

test("baselines stand beside FVU and ΔCE, where there are any", () => {
  const evaluation = { components: 32, directions: 32, figures: { pca_fvu: { value: 0.4 }, ce_mean: { value: 5 } } };
  assert.deepEqual(baselines(evaluation, "fvu"), [["32 principal components", { value: 0.4 }]]);
  assert.deepEqual(baselines(evaluation, "ce_delta").length, 1);
  assert.deepEqual(baselines(evaluation, "l0"), []);
});
