import assert from "node:assert/strict";
import test from "node:test";
import { hooksFound, usualHook } from "./hooks.js";

const HOOKS = ["hook_embed", ...[0, 1, 13].flatMap((layer) => ["hook_resid_pre", "attn.hook_z", "hook_mlp_out"].map((point) => `blocks.${layer}.${point}`))];
const found = (search) => hooksFound(HOOKS, search).map(({ hook }) => hook);

test("hooks are found by layer and by point", () => {
  assert.deepEqual(found("1"), ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out"]);
  assert.deepEqual(found("layer 13 RESID"), ["blocks.13.hook_resid_pre"]);
  assert.deepEqual(found("z"), ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z", "blocks.13.attn.hook_z"]);
  assert.deepEqual(found("blocks.1.hook_mlp_out"), ["blocks.1.hook_mlp_out"]);
  assert.deepEqual(found("embed"), ["hook_embed"]);
  assert.equal(found("").length, HOOKS.length);
});

test("the middle of a model is read first", () => {
  assert.equal(usualHook({ n_layers: 6 }), "blocks.3.hook_resid_post");
  assert.equal(usualHook(null), "blocks.0.hook_resid_post");
});
