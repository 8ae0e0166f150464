import assert from "node:assert/strict";
import test from "node:test";
import { heat, level } from "./heat.js";

test("what does not fire has no shade, and what does has more the stronger it is", () => {
  assert.equal(heat(0, 3), 0);
  assert.equal(heat(-1, 3), 0);
  assert.equal(heat(1, 0), 0);
  const shades = [0.01, 0.1, 1, 2, 3].map((value) => heat(value, 3));
  assert.deepEqual([...shades].sort((a, b) => a - b), shades);
  assert.ok(shades[0] >= 0.06);
  assert.equal(heat(3, 3).toFixed(6), "0.450000");
  assert.equal(heat(9, 3), heat(3, 3));
});

test("the steps that need no colour are three, of equal share", () => {
  assert.deepEqual([0, 0.1, 1, 1.1, 2.5, 3, 9].map((value) => level(value, 3)), [0, 1, 1, 2, 3, 3, 3]);
});
