import assert from "node:assert/strict";
import { test } from "node:test";
import { madeBy } from "./made.js";

const job = (kind, spec = {}, more = {}) => ({ id: 7, kind, state: "done", spec: { kind, ...spec }, makes: null, ...more });

test("a job that is done leads to what it made, one that is not to nothing", () => {
  assert.deepEqual(madeBy(job("add_model", { name: "pico" })), [{ words: "Model pico", at: ["models", ["pico"]], noun: "model", name: "pico" }]);
  assert.deepEqual(madeBy(job("tokenize", { name: "t", dataset: "d" }))[0].at, ["datasets", ["d"]]);
  assert.deepEqual(madeBy(job("label", { sae: "s" }))[0].at, ["features", ["s"]]);
  assert.deepEqual(madeBy(job("evaluate", { sae: "s" }))[0].at, ["saes", ["s"]]);
  assert.deepEqual(madeBy(job("compare", { saes: ["a", "b"] }))[0].at, ["saes", ["compare", 7]]);
  assert.deepEqual(madeBy(job("add_model", { name: "pico" }, { state: "failed" })), []);
});

test("a training leads to each of its SAEs", () => {
  const made = madeBy(job("train", { name: "grid" }, { makes: { noun: "sae", names: ["grid-1", "grid-2"] } }));
  assert.deepEqual(made.map(({ words }) => words), ["SAE grid-1", "SAE grid-2"]);
});
