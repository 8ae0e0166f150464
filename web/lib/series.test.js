import assert from "node:assert/strict";
import test from "node:test";
import { smoothed } from "./series.js";

test("what is smoothed keeps its level, its holes and its length", () => {
  assert.deepEqual(smoothed([1, null, 2], 0), [1, null, 2]);
  assert.deepEqual(smoothed([3, null, 3, 3], 5).map((value) => value && Number(value.toFixed(9))), [3, null, 3, 3]);
  const noisy = Array.from({ length: 200 }, (_, n) => 1 + (n % 2 ? 0.5 : -0.5));
  assert.ok(Math.abs(smoothed(noisy, 20).at(-1) - 1) < 0.05);
});
