import assert from "node:assert/strict";
import test from "node:test";
import { flags, inWords, terms, valueOf, withFlags, withTerm, without } from "./feature_filter.js";
import { density, listed, sayer, spark } from "./feature_words.js";

const FILTER = 'alive density<0.01 list:"two words" token:" import"';

test("a filter is read as the studio reads it", () => {
  assert.deepEqual(terms(FILTER).map((one) => one.text), ["alive", "density<0.01", 'list:"two words"', 'token:" import"']);
  assert.equal(valueOf(FILTER, "list", ":"), "two words");
  assert.equal(valueOf(FILTER, "density", ">"), "");
  assert.deepEqual(terms("alive ???").at(-1), { text: "???" });
  assert.deepEqual(terms("  "), []);
});

test("one term is changed, and the others stay as they were", () => {
  assert.equal(withTerm(FILTER, "density", "<", 0.5), 'alive list:"two words" token:" import" density<0.5');
  assert.equal(withTerm("alive", "list", ":", 'a "b"'), 'alive list:"a \\"b\\""');
  assert.equal(valueOf(withTerm("", "token", ":", "\n"), "token", ":"), "\n");
  assert.equal(withTerm(FILTER, "list", ":", ""), 'alive density<0.01 token:" import"');
  assert.equal(withFlags(FILTER, "dead"), 'dead density<0.01 list:"two words" token:" import"');
  assert.equal(withFlags("alive unlabelled max>3", ""), "max>3");
  assert.equal(flags("max>3 alive unlabelled"), "alive unlabelled");
  assert.equal(without(FILTER, "density<0.01"), 'alive list:"two words" token:" import"');
});

test("each term can be said", () => {
  assert.deepEqual(terms(`${FILTER} max>3 score<0.7 provider:tokens unlabelled index:1,2`).map(inWords), [
    "alive", "fires on less than 1.0%", "in the list two words", "fires on “ import”", "maximum above 3", "score below 0.7",
    "labelled by tokens", "without a label", "chosen by number",
  ]);
});

test("a share is said however small it is", () => {
  assert.deepEqual([0, 0.2094, 0.0088, 0.0000123, 1, undefined].map(density), ["0%", "21%", "0.88%", "0.0012%", "100%", "—"]);
  assert.equal(spark(0), 0);
  assert.ok(spark(1e-5) < spark(1e-2) && spark(1) === 1 && spark(1e-9) > 0);
});

test("who said something, and what to ask for a list", () => {
  assert.equal(sayer({ provider: "ollama", model: "qwen" }), "ollama, qwen");
  assert.equal(sayer({ provider: "person", model: null }), "a person");
  assert.equal(listed({ sort: "", q: "a b" }).toString(), "sort=-max&q=a+b");
});
