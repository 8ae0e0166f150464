import assert from "node:assert/strict";
import test from "node:test";
import { around, runs, shownToken, visible } from "./token_runs.js";

test("what fires stands by itself, what is between is one piece, and joined they are the text", () => {
  const texts = ["a", " b", "c", " d", "\n", "e"];
  const found = runs(texts, [0, 2, 0, 0, 1, 0], 1);
  assert.deepEqual(found.map((one) => one.text), ["a", " b", "c d", "\n", "e"]);
  assert.deepEqual(found.map((one) => one.value), [0, 2, 0, 1, 0]);
  assert.deepEqual(found.map((one) => one.peak), [false, true, false, false, false]);
  assert.equal(found.map((one) => one.text).join(""), texts.join(""));
});

test("a character of several tokens has the strongest of their values, and the peak of any", () => {
  assert.deepEqual(runs(["x", "", "", "日", "y"], [0, 3, 0, 1, 0], 1), [
    { text: "x", value: 0, peak: false },
    { text: "日", value: 3, peak: true },
    { text: "y", value: 0, peak: false },
  ]);
});

test("a peak that does not fire, as where it nearly did, stands by itself too", () => {
  assert.deepEqual(runs(["a", "b", "c"], [0, 0, 0], 1).map((one) => one.text), ["a", "b", "c"]);
});

test("white space is seen", () => {
  assert.equal(visible("a\n    b\tc"), "a ↵ b⇥c");
  assert.equal(visible("a\n  b", true), "a↵\n  b");
  assert.equal(visible("a  b"), "a  b");
  assert.equal(shownToken("  if "), "␣␣if␣");
  assert.equal(shownToken("\n    "), "↵␣␣␣␣");
});

test("a line has its peak near its middle, and no more than there is", () => {
  const texts = Array.from({ length: 30 }, (_, n) => `${n} `);
  const line = around({ texts, activations: texts.map(() => 0), peak: 20 });
  assert.equal(line.texts[line.peak], "20 ");
  assert.equal(line.texts.length, 18);
  assert.equal(around({ texts, activations: [], peak: 2 }).peak, 2);
});
