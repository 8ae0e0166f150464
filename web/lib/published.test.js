import assert from "node:assert/strict";
import { test } from "node:test";
import { grouped, hubModel, matching, modelsFor, publishedName, spans } from "./published.js";

const one = (layer, width, l0) => ({ path: `layer_${layer}/width_${width / 1024}k/average_l0_${l0}`, hook: `blocks.${layer}.hook_resid_post`, format: "gemma_scope", layer, width, l0 });
const SCOPE = [one(2, 16384, 41), one(2, 16384, 176), one(2, 65536, 90), one(12, 16384, 82)];

test("entries are found by words of their path and figures", () => {
  assert.deepEqual(matching(SCOPE, "layer_2 16k"), SCOPE.slice(0, 2));
  assert.deepEqual(matching(SCOPE, "l0 82"), [SCOPE[3]]);
  assert.deepEqual(matching(SCOPE, "blocks.12"), [SCOPE[3]]);
  assert.equal(matching(SCOPE, "").length, 4);
});

test("those of a layer and hook stand together, with what they span", () => {
  const groups = grouped(SCOPE);
  assert.deepEqual(groups.map(({ layer, saes }) => [layer, saes.length]), [["Layer 2", 3], ["Layer 12", 1]]);
  assert.equal(spans(groups[0].saes), "width 16,384 to 65,536 · L0 41 to 176");
  assert.equal(spans([{ width: null, l0: null }]), "");
  assert.equal(grouped([{ layer: null, hook: null }])[0].layer, "Layer not said");
});

test("what is brought in is called by its repository and path, its end when that is too long", () => {
  assert.equal(publishedName("google/gemma-scope-2b-pt-res", "layer_12/width_16k", new Map()), "gemma-scope-2b-pt-res-layer_12-width_16k");
  assert.equal(publishedName("/saes/mine", "a/params.npz", new Map()), "mine-a");
  assert.equal(publishedName("org/s", "", new Map([["s", 1]])), "s-2");
  const long = publishedName("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82/with/more", new Map());
  assert.ok(long.length <= 64 && long.endsWith("average_l0_82-with-more"));
});

test("the model that an SAE needs is known by its names", () => {
  assert.deepEqual(["gpt2-small", "gemma-2-2b", "EleutherAI/pythia-70m", "mine"].map(hubModel), ["openai-community/gpt2", "google/gemma-2-2b", "EleutherAI/pythia-70m", "mine"]);
  const gpt2 = { name: "g", source: "openai-community/gpt2" };
  const folder = { name: "other", source: "/models/pico" };
  const pico = { name: "pico", source: "builtin:pico" };
  assert.deepEqual(modelsFor("gpt2-small", [gpt2, folder]), [gpt2]);
  assert.deepEqual(modelsFor("pico", [folder, pico]), [folder, pico]);
  assert.deepEqual(modelsFor("gemma-2-2b", [gpt2]), []);
});
