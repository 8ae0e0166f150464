import assert from "node:assert/strict";
import test from "node:test";
import { linesOf, smoothed } from "./series.js";

const at = (step, sae, values) => ({ step, sae, values });

test("each SAE has a line, with holes where it was not measured", () => {
  const found = linesOf([at(10, "a", { fvu: 1 }), at(20, "a", { fvu: 0.5, ce: 3 }), at(20, "b", { fvu: 0.6 }), at(30, "b", { fvu: null })], "fvu");
  assert.deepEqual(found, { steps: [10, 20], lines: [{ name: "a", values: [1, 0.5] }, { name: "b", values: [null, 0.6] }] });
  assert.deepEqual(linesOf([at(1, null, {})], "fvu"), { steps: [], lines: [] });
});

test("what is smoothed keeps its level, its holes and its length", () => {
  assert.deepEqual(smoothed([1, null, 2], 0), [1, null, 2]);
  assert.deepEqual(smoothed([3, null, 3, 3], 5).map((value) => value && Number(value.toFixed(9))), [3, null, 3, 3]);
  const noisy = Array.from({ length: 200 }, (_, n) => 1 + (n % 2 ? 0.5 : -0.5));
  assert.ok(Math.abs(smoothed(noisy, 20).at(-1) - 1) < 0.05);
});
