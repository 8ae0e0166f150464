import assert from "node:assert/strict";
import test from "node:test";
import { datasetName, freeName, modelName, named, saeName, tokenizationName } from "./names.js";

test("a source gives a name that the studio takes", () => {
  assert.equal(datasetName("roneneldan/TinyStories"), "TinyStories");
  assert.equal(datasetName("/data/my stories.jsonl.gz"), "my-stories");
  assert.equal(datasetName("builtin:python"), "python");
  assert.equal(datasetName("/data/2024/"), "dataset-2024");
  assert.equal(modelName("EleutherAI/pythia-70m"), "pythia-70m");
  assert.equal(tokenizationName("stories", "pico"), "stories-pico");
});

test("what a person types on the way there is no name yet, and breaks nothing", () => {
  for (const text of ["", "/", "..", "é", "-", "a".repeat(200)]) {
    assert.match(named(text, "x"), /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
  }
});

test("an SAE is called by its model, layer and point", () => {
  assert.equal(saeName("pico", "blocks.3.hook_resid_post"), "pico-L3-resid_post");
  assert.equal(saeName("pico", "blocks.0.attn.hook_z"), "pico-L0-attn.z");
  assert.equal(saeName("pico", "elsewhere"), "pico-sae");
});

test("a name that is taken gets the first free number", () => {
  const taken = new Map([["a", 1], ["a-2", 1], ["b".repeat(64), 1]]);
  assert.equal(freeName("a", taken), "a-3");
  assert.equal(freeName("c", taken), "c");
  assert.equal(freeName("b".repeat(64), taken), `${"b".repeat(62)}-2`);
});
