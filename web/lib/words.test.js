import assert from "node:assert/strict";
import test from "node:test";
import { compared } from "./words.js";

const marked = (text, other) => compared(text, other).filter((one) => one.changed).map((one) => one.text);

test("words that the other text has not are marked, and nothing is lost", () => {
  assert.deepEqual(marked("the cat sat on a mat", "the dog sat on a mat"), ["cat"]);
  assert.deepEqual(marked("a b c", "a b c"), []);
  assert.deepEqual(marked("new", ""), ["new"]);
  for (const [text, other] of [["  a\n b ", "b a"], ["", "x"], ["x", ""]]) {
    assert.equal(compared(text, other).map((one) => one.text).join(""), text);
  }
});

test("of very long texts nothing is marked", () => {
  assert.deepEqual(marked("a ".repeat(3000), "b"), []);
});
