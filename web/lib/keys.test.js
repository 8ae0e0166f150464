import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, meaning, step } from "./keys.js";
import { parse } from "./route.js";

test("g and a letter lead to a panel that there is", () => {
  for (const [keys, name] of KEYS.filter(([keys]) => keys.length === 2)) {
    const { does, since } = meaning("g", 5, null);
    assert.equal(does, null);
    const then = meaning(keys[1], 100, since);
    assert.equal(then.does[0], "panel");
    assert.equal(parse(`#/${then.does[1]}`).panel, name.toLowerCase());
    assert.equal(then.since, null);
  }
});

test("after a while, or with another letter, g is forgotten", () => {
  assert.deepEqual(meaning("j", 2000, 0), { does: ["down"], since: null });
  assert.deepEqual(meaning("x", 100, 0), { does: null, since: null });
  assert.deepEqual(meaning("g", 2000, 0), { does: null, since: 2000 });
});

test("a key alone does its one thing, any other nothing", () => {
  assert.deepEqual(meaning("/", 0, null).does, ["search"]);
  assert.deepEqual(meaning("?", 0, null).does, ["keys"]);
  assert.equal(meaning("q", 0, null).does, null);
  assert.equal(new Set(KEYS.map(([keys]) => keys.join(" "))).size, KEYS.length);
});

test("rows begin at the first and end at the last", () => {
  assert.deepEqual([step(-1, 1, 3), step(0, 1, 3), step(2, 1, 3), step(0, -1, 3), step(-1, -1, 3)], [0, 1, 2, 0, 0]);
});
