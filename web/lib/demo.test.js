import assert from "node:assert/strict";
import test from "node:test";
import { demo } from "./demo.js";

test("what is there already is not made again, and what was found in it is found anew", () => {
  assert.deepEqual(demo(() => false).map(({ kind }) => kind), ["add_model", "add_dataset", "tokenize", "train", "extract", "label", "score"]);
  assert.deepEqual(demo((noun) => noun !== "sae").map(({ kind }) => kind), ["train", "extract", "label", "score"]);
});
