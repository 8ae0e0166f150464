import assert from "node:assert/strict";
import test from "node:test";
import { bandOf, bandWords, bands, beginning, ladder, reach, snapped } from "./bands.js";

const sides = (low, high) => ({ low, high });
const RANGE = { kl: { 0.1: sides(-1.3, 1.3), 0.5: sides(-2.7, 2.8), 2: sides(-5, 5.6) }, breaks: { ...sides(-4.8, 6.2), why: "perplexity" } };
const STILL = { kl: { 0.1: sides(null, null), 0.5: sides(null, null), 2: sides(null, null) }, breaks: { ...sides(null, null), why: null } };

test("a slider reaches a little beyond what is known, in even steps, with 0 among them", () => {
  assert.deepEqual(reach(RANGE), { most: 7.8, step: 0.1 });
  assert.deepEqual(reach(STILL), { most: 10, step: 0.1 });
  assert.deepEqual(reach(null, 4), { most: 4, step: 0.05 });
  const far = { ...RANGE, breaks: { ...sides(null, 90), why: "repetition" } };
  assert.equal(reach(far).most, 7);
  for (const range of [RANGE, STILL, far, null]) assert.ok(Math.abs((reach(range).most / reach(range).step) % 1) < 1e-6);
});

test("bands cover the slider without gaps, and end where texts fall apart", () => {
  const found = bands(RANGE, 8);
  assert.deepEqual(found.map(({ name }) => name), ["apart", "clear", "slight", "hardly", "hardly", "slight", "clear", "strong", "apart"]);
  assert.deepEqual(found.map(({ from }) => from), [-8, -4.8, -2.7, -1.3, 0, 1.3, 2.8, 5.6, 6.2]);
  found.slice(1).forEach((one, at) => assert.equal(one.from + 0, found[at].to + 0));
  assert.deepEqual(bands(STILL, 10).map(({ name }) => name), ["hardly", "hardly"]);
  assert.deepEqual(bands(null, 10), []);
});

test("a strength is told what it does", () => {
  assert.deepEqual([0.5, -1.3, 2, 5, 6, 60, -4.9].map((one) => bandOf(RANGE, one)), ["hardly", "hardly", "slight", "clear", "strong", "apart", "apart"]);
  assert.equal(bandWords(RANGE, 0), "");
  assert.match(bandWords(RANGE, -5), /fall apart: the model would hardly write it/);
  assert.match(bandWords(STILL, 50), /hardly any/);
});

test("what is near 0 is 0, for a pointer", () => {
  assert.deepEqual([0.1, -0.1, 0.5].map((one) => snapped(one, 8)), [0, 0, 0.5]);
});

test("a sweep goes over the strengths that mean something", () => {
  assert.deepEqual(ladder(RANGE), [-5, -2.7, -1.3, 0, 1.3, 2.8, 5.6]);
  assert.deepEqual(ladder(STILL), [0]);
});

test("a slider begins where half a nat is reached", () => {
  const at = (high) => beginning({ ...RANGE, kl: { ...RANGE.kl, 0.5: sides(-1, high) } });
  assert.deepEqual([2.8, 0.7612, 1.3, 24.1, 0.0123, null].map(at), [2.8, 0.77, 1.3, 25, 0.013, 1]);
});
