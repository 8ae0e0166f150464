import assert from "node:assert/strict";
import { test } from "node:test";
import { FORMATS, lacks } from "./layouts.js";

const room = (config, extractions = 0) => FORMATS.map(([format]) => format).filter((format) => lacks(format, config, extractions) === null);

test("each rule has the formats that hold it", () => {
  assert.deepEqual(room({ architecture: "jumprelu", d_in: 8 }), ["saelens", "zip", "dictionary_learning", "gemma_scope_npz"]);
  assert.deepEqual(room({ architecture: "topk", d_in: 8 }), ["saelens", "zip", "sparsify", "dictionary_learning"]);
  assert.deepEqual(room({ architecture: "gated", d_in: 8 }, 1), ["saelens", "zip", "dictionary_learning", "neuronpedia", "saedashboard"]);
  assert.deepEqual(room({ architecture: "topk_transcoder", d_in: 8, d_out: 8 }), ["sparsify"]);
  assert.deepEqual(room({ architecture: "standard", d_in: 8, normalize_activations: "layer_norm" }), ["saelens", "zip"]);
});

test("a refusal says why", () => {
  assert.match(lacks("sparsify", { architecture: "topk_transcoder", d_in: 8, d_out: 9 }, 0), /reads 8 and rebuilds 9/);
  assert.match(lacks("neuronpedia", {}, 0), /extracted/);
  assert.deepEqual(FORMATS.filter(([format]) => lacks(format, undefined, undefined)), []); // not known yet
});
