import assert from "node:assert/strict";
import test from "node:test";
import { PAGE, broughtInto, inSight, pagesOf } from "./virtual.js";

test("what is in sight is drawn, and never more than there is", () => {
  assert.deepEqual(inSight(0, 360, 36, 131_072, 0), { first: 0, last: 10 });
  assert.deepEqual(inSight(18, 360, 36, 131_072, 0), { first: 0, last: 11 });
  assert.deepEqual(inSight(131_072 * 36 - 360, 360, 36, 131_072, 5), { first: 131_057, last: 131_072 });
  assert.deepEqual(inSight(0, 360, 36, 3), { first: 0, last: 3 });
  assert.deepEqual(inSight(900, 360, 36, 3), { first: 3, last: 3 });
});

test("the pages of a stretch are all that hold a row of it", () => {
  assert.deepEqual(pagesOf(0, 0), []);
  assert.deepEqual(pagesOf(0, PAGE), [0]);
  assert.deepEqual(pagesOf(PAGE - 1, PAGE + 1), [0, 1]);
  assert.deepEqual(pagesOf(20 * PAGE, 20 * PAGE + 1), [20]);
});

test("a row is brought into sight by the shortest way", () => {
  assert.equal(broughtInto(0, 360, 36, 5), 0);
  assert.equal(broughtInto(0, 360, 36, 10), 36);
  assert.equal(broughtInto(720, 360, 36, 3), 108);
  assert.equal(broughtInto(0, 360, 36, 9, 36), 36);
});
