import assert from "node:assert/strict";
import test from "node:test";
import { blocksOf, meaning, modulesOf } from "./architecture.js";

const weight = (shape) => ({ name: "weight", dtype: "BF16", shape, parameters: shape.reduce((a, b) => a * b, 1), children: [] });
const module = (name, ...children) => ({ name, dtype: null, shape: null, parameters: 0, children });
const MODEL = {
  hooks: [0, 1, 2].flatMap((n) => ["hook_resid_pre", "attn.hook_z", "mlp.hook_post", "hook_resid_post"].map((point) => `blocks.${n}.${point}`)),
  hook_widths: { hook_resid_pre: 8, "attn.hook_z": 8, "mlp.hook_post": 32, hook_resid_post: 8 },
  tree: module("", module("model",
    module("embed_tokens", weight([100, 8])),
    module("layers",
      module("0, 2", module("self_attn", module("q_proj", weight([8, 8]))), module("mlp", module("up_proj", weight([32, 8]))), module("post_attention_layernorm", weight([8]))),
      module("1", module("self_attn", module("q_proj", weight([4, 8]))))),
    module("norm", weight([8]))), module("lm_head", weight([100, 8]))),
};

test("hooks stand in the order of the blocks, each where it is read", () => {
  const blocks = blocksOf(MODEL);
  assert.deepEqual(blocks.map(({ layer }) => layer), [0, 1, 2]);
  assert.deepEqual(blocks[1].hooks.map(({ place, width }) => [place, width]), [["before", 8], ["attention", 8], ["mlp", 32], ["after", 8]]);
  assert.equal(blocks[2].hooks[3].hook, "blocks.2.hook_resid_post");
  assert.match(meaning("blocks.2.hook_resid_post"), /residual stream after/);
  assert.equal(meaning("blocks.2.hook_other"), "");
});

test("modules stand where they belong, those of blocks that are alike in each of them", () => {
  const modules = modulesOf(MODEL);
  const names = (list) => list.map(({ name }) => name);
  assert.deepEqual(names(modules.embedding), ["model.embed_tokens"]);
  assert.deepEqual(names(modules.head), ["model.norm", "lm_head"]);
  assert.deepEqual(names(modules.block(2).attention), ["self_attn.q_proj"]);
  assert.deepEqual(names(modules.block(0).mlp), ["mlp.up_proj"]);
  assert.deepEqual(names(modules.block(0).other), ["post_attention_layernorm"]);
  assert.deepEqual(modules.block(1).attention[0].shape, [4, 8]);
});

test("a model of which less was noted has hooks and no modules", () => {
  const modules = modulesOf({ hooks: [] });
  assert.deepEqual([modules.embedding, modules.head, modules.block(0).mlp], [[], [], []]);
  assert.deepEqual(blocksOf({}), []);
});
