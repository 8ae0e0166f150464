import assert from "node:assert/strict";
import test from "node:test";
import { commandOf, defaultsOf, extended, isOpen, lacking, numbersOf, numbersText, presetOf, specOf, valuesOf } from "./training_spec.js";

const FIELDS = {
  kind: { default: "train" }, preset: { default: null }, name: {}, hook: {}, architecture: { default: ["batchtopk"] }, width: { default: [2048] },
  k: { default: [32] }, l1: { default: null }, tokens: { default: 2_000_000 }, skip: { default: false }, precision: { default: "auto" },
  whole_model: { default: null }, batch_tokens: { default: 4096 },
};

test("numbers are read with thousands separators, commas and spaces between them", () => {
  const read = {
    "8,192, 16,384": [8192, 16384], "8192, 16384": [8192, 16384], "8192 16384": [8192, 16384], "8,192,16,384": [8192, 16384], "16,32": [16, 32],
    "1,000,000": [1_000_000], "0.1,0.25": [0.1, 0.25], "0.125,0.250": [0.125, 0.25], "1e6": [1e6], "8192;16384": [8192, 16384], "": [], " , ": [],
    "12 abc": [12, "abc"], "8,1920": [8, 1920],
  };
  for (const [text, numbers] of Object.entries(read)) assert.deepEqual(numbersOf(text), numbers, text);
  assert.equal(numbersText([8192, 16384]), "8,192, 16,384");
  for (const numbers of [[0.003], [1_000_000], [5e-5], [0.1, 0.25], [8192, 512]]) assert.deepEqual(numbersOf(numbersText(numbers)), numbers);
});

test("a spec goes into a form and comes out the same", () => {
  const spec = { kind: "train", name: "a", tokenization: "t", hook: ["x", "y"], architecture: ["topk", "gated"], width: [512, 1024], k: 16, l1: 0.25,
    tokens: 1_000_000, lr: 0.0003, seed: [0, 1], outliers: true, precision: "bf16", whole_model: false, checkpoint_every_s: 60 };
  assert.deepEqual(specOf(valuesOf({ ...spec, steps: null, preset: "standard" })), spec);
});

test("what is not heeded is not sent", () => {
  const values = { ...defaultsOf(FIELDS), name: "a", hook: ["x"], l1: "0.2", hook_out: "y", skip: true, tanh: "1" };
  assert.deepEqual(specOf(values), { kind: "train", name: "a", hook: "x", architecture: "batchtopk", width: 2048, k: 32, tokens: 2_000_000, precision: "auto", batch_tokens: 4096 });
  const dense = specOf({ ...values, architecture: ["standard"] });
  assert.deepEqual([dense.k, dense.l1], [undefined, 0.2]);
  assert.equal(specOf({ ...values, architecture: ["transcoder"] }).hook_out, "y");
});

test("a preset is known by its values", () => {
  const presets = { quick: { width: 2048, tokens: 2_000_000 }, large: { width: 8192, tokens: 2_000_000 } };
  assert.equal(presetOf(defaultsOf(FIELDS), presets), "quick");
  assert.equal(presetOf({ ...defaultsOf(FIELDS), width: "8,192" }, presets), "large");
  assert.equal(presetOf({ ...defaultsOf(FIELDS), width: "8192 4096" }, presets), null);
});

test("the line for the terminal says what is not so anyway, and is quoted", () => {
  const spec = { kind: "train", name: "a", hook: ["x", "y"], architecture: "batchtopk", width: [512, 1024], k: 32, tokens: 2_000_000, skip: true, whole_model: false, preset: null, l1: null };
  assert.equal(commandOf(spec, FIELDS), "mistudio train start --name a --hook x --hook y --width 512,1024 --skip --no-whole-model");
  assert.equal(commandOf({ name: "it's" }, FIELDS), "mistudio train start --name 'it'\\''s'");
});

test("a training that goes on keeps what was chosen for it", () => {
  const recipe = { name: "a-2", spec: { name: "a", tokens: 10, steps: 5, precision: "auto", threads: 4 }, resolved: { precision: "bf16", threads: 2, micro_tokens: 64 } };
  assert.deepEqual(extended(recipe, 20), { name: "a", tokens: 20, steps: null, precision: "bf16", threads: 4, micro_tokens: 64, extends: "a-2" });
});

test("what an SAE was trained with stays when it is trained further, and it takes more tokens", () => {
  const values = { ...defaultsOf(FIELDS), name: "b", hook: ["x"], extends: "a", tokens: "2,000" };
  assert.deepEqual(["width", "lr", "tokens", "threads"].map((name) => isOpen(name, values)), [false, false, true, true]);
  assert.ok(isOpen("width", { ...values, extends: "" }));
  assert.match(lacking(values, 2000), /^a was trained on 2,000 tokens already/);
  assert.equal(lacking(values, 1999), "");
  assert.equal(lacking({ ...values, steps: "9" }, 2000), "");
  assert.equal(lacking({ ...values, hook: [] }, 0), "Choose a hook first.");
});
