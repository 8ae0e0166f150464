import assert from "node:assert/strict";
import test from "node:test";
import { delayMs } from "./backoff.js";

test("tries come further and further apart, up to a limit, and not all at once", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 100].map((n) => delayMs(n, 1)), [1000, 2000, 4000, 8000, 15_000, 15_000]);
  assert.equal(delayMs(3, 0), 4000);
});
