import assert from "node:assert/strict";
import test from "node:test";
import { piecesOf, visible } from "./pieces.js";

const found = (rows) => ({
  ids: rows.map((row) => row[0]), texts: rows.map((row) => row[1]), starts: rows.map((row) => row[2]),
  ends: rows.map((row) => row[3]), special: rows.map((row) => row[4] ?? false),
});

test("tokens cut a text, and what stands before it is told by its own text", () => {
  const pieces = piecesOf("a café", found([[0, "<bos>", 0, 0, true], [1, "a", 0, 1], [2, " caf", 1, 5], [3, "é", 5, 7]]));
  assert.deepEqual(pieces.map((one) => one.text), ["<bos>", "a", " caf", "é"]);
  assert.deepEqual(pieces.map((one) => one.special), [true, false, false, false]);
});

test("a character that several tokens share is told by its bytes", () => {
  const pieces = piecesOf("€", found([[1, "�", 0, 1], [2, "�", 1, 3]]));
  assert.deepEqual(pieces.map((one) => one.text), ["⟨E2⟩", "⟨82⟩⟨AC⟩"]);
});

test("nothing of the text is lost where tokens leave holes", () => {
  const pieces = piecesOf("a  b", found([[1, "a", 0, 1], [2, "b", 3, 4]]));
  assert.deepEqual(pieces, [
    { text: "a", id: 1, special: false }, { text: "  ", id: null, special: false }, { text: "b", id: 2, special: false },
  ]);
});

test("white space can be seen", () => {
  assert.equal(visible(" \n\tx"), "·↵⇥x");
});
