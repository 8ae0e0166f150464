import assert from "node:assert/strict";
import { test } from "node:test";
import { labelsOf, unfit } from "./label_files.js";

test("labels come line by line, or out of a feature_labels.json without its scores", () => {
  assert.deepEqual(labelsOf('{"feature":1,"text":"a"}\n\n{"feature":2,"text":"b"}\n').labels.map(({ feature }) => feature), [1, 2]);
  assert.deepEqual(labelsOf('{"sae":"s","labels":[{"feature":3,"text":"c","score":0.9}]}').labels, [{ feature: 3, text: "c" }]);
});

test("Neuronpedia's explanations become labels of that provider", () => {
  const { labels, skipped } = labelsOf('{"index":"7","description":" dogs ","notes":"n","typeName":"oai","explanationModelName":"m"}\n{"index":"8","description":""}');
  assert.deepEqual(labels, [{ feature: 7, text: "dogs", explanation: "n", provider: "neuronpedia", model: "m", template: "oai", created_at: null }]);
  assert.equal(skipped, 1);
  const [long] = labelsOf(JSON.stringify({ index: "1", description: "x".repeat(300) })).labels;
  assert.deepEqual([long.text.length, long.text.at(-1), long.explanation.length], [200, "…", 300]);
  assert.equal(labelsOf('{"index":"1","description":"a\\u0000b\\ud800"}').labels[0].text, "a␀b\ufffd");
});

test("what is no label is said with its line", () => {
  assert.throws(() => labelsOf('{"feature":1,"text":"a"}\nnothing'), /line 2 is no JSON object/);
  assert.throws(() => labelsOf('{"text":"a"}'), /line 1 names no feature/);
  assert.throws(() => labelsOf('{"index":"a","description":"x"}'), /line 1: "a" is no index/);
});

test("labels of a wider SAE do not fit", () => {
  assert.match(unfit([{ feature: 512 }], 512), /a feature 512, and this one has features 0 to 511/);
  assert.equal(unfit([{ feature: 511 }], 512), null);
  assert.equal(unfit([], 512), null);
});
