import assert from "node:assert/strict";
import { test } from "node:test";
import { certified, deadOf, depending, evaluated, found, isAbout, labelled, latest, little, measuredBy, sourceOf, tagged, tagsOf, timeFor } from "./saes.js";

const SAE = { name: "a", model: { name: "pico" }, hook: "blocks.3.hook_resid_post", alive: 0.9, tags: ["good", "small"] };

test("a certificate is a word and a shape", () => {
  assert.equal(certified({}).word, "not certified");
  assert.equal(certified({ certificate: { holds: "declared" } }).word, "certified");
  assert.equal(certified({ certificate: { holds: "other" } }).word, "to repair");
  assert.equal(certified({ certificate: { holds: "other", repaired: "b" } }).word, "repaired");
  assert.deepEqual([certified({ certificate: { holds: "changed" } }).word, certified({ certificate: { holds: "none" } }).shape], ["outdated", "failed"]);
});

test("what was measured last counts, and an evaluation whose figures are gone is outdated", () => {
  assert.ok(Math.abs(deadOf(SAE) - 0.1) < 1e-12);
  assert.equal(deadOf({ ...SAE, evaluation: { figures: { alive: { value: 1 } } } }), 0);
  assert.equal(deadOf({}), null);
  assert.deepEqual([0, 0.0005, 0.02, null].map(little), ["0%", "<0.1%", "2.0%", "—"]);
  assert.deepEqual([{}, { evaluation: { verdict: ["x"] } }, { evaluation: { figures: {} } }].map(evaluated), ["none", "outdated", "there"]);
});

test("figures are those of whoever has measured last, and say who that is", () => {
  const brought = { imported: {}, certificate: { holds: "declared", best: { fvu: 0.2 } } };
  assert.deepEqual([latest(brought, "fvu"), measuredBy(brought)], [0.2, "as it was certified"]);
  assert.equal(latest({ ...brought, certificate: { holds: "other", best: { fvu: 0.2 } } }, "fvu"), null);
  assert.equal(measuredBy({ imported: {} }), "nothing has been measured of it here yet");
  assert.equal(measuredBy({ certificate: { holds: "other" } }), "its certificate says what was measured of it");
  assert.equal(measuredBy({ fvu: 0.1, held_out_tokens: 5000 }), "at the end of its training, on 5,000 held-out tokens");
});

test("how far its features are known", () => {
  assert.deepEqual([null, { extractions: 0 }, { extractions: 1, labels: 256 }].map((found) => labelled(found, 512)), ["—", "none yet", "50% labelled"]);
  assert.equal(labelled({ extractions: 1, labels: 256 }, null), "256 labelled");
});

test("SAEs are found by words, tag and model, all of them at once", () => {
  const saes = [SAE, { name: "b", model_name: "gpt2", note: "of layer 8" }];
  assert.deepEqual(found(saes, {}).length, 2);
  assert.deepEqual(found(saes, { q: "RESID good" }), [SAE]);
  assert.deepEqual(found(saes, { q: "layer", model: "gpt2" }), [saes[1]]);
  assert.deepEqual(found(saes, { tag: "small", model: "gpt2" }), []);
  assert.deepEqual(tagsOf(saes), ["good", "small"]);
});

test("where it is from", () => {
  assert.equal(sourceOf(SAE), "trained here");
  assert.equal(sourceOf({ imported: { source: "org/saes", path: "layer_1" } }), "org/saes:layer_1");
  assert.equal(sourceOf({ imported: { source: `upload:${"0".repeat(32)}` } }), "uploaded");
});

test("a job is about an SAE that it makes, reads or compares", () => {
  assert.ok(isAbout({ spec: { sae: "a" } }, "a"));
  assert.ok(isAbout({ spec: { saes: ["b", "a@200"] } }, "a"));
  assert.ok(isAbout({ spec: { name: "g" }, makes: { names: ["g-1", "a"] } }, "a"));
  assert.ok(!isAbout({ spec: { saes: ["ab"] } }, "a"));
});

test("tags of a text are those to add and those to take away", () => {
  assert.deepEqual(tagged(["old", "kept"], " kept, new new"), { add_tags: ["new"], remove_tags: ["old"] });
});

test("what goes with an SAE, what stays, and what is in the way", () => {
  const none = { extractions: 0, labels: 0, marked: 0, ranges: 0, exports: [], profiles: [], steerings: 0, extended_by: [], jobs: [], in_session: false };
  assert.deepEqual(depending(none), { goes: [], stays: [], holds: [] });
  const { goes, stays, holds } = depending({ ...none, extractions: 2, labels: 1, exports: ["zip"], steerings: 3, jobs: [7, 9] });
  assert.deepEqual(goes, ["2 extractions", "1 label", "its zip export"]);
  assert.deepEqual(stays, ["3 runs of steering"]);
  assert.match(holds[0], /^job 7, 9 uses it/);
});

test("a time is as the last job of that kind went", () => {
  const job = { id: 4, kind: "evaluate", state: "done", result: { tokens: 1000 }, started_at: "2026-01-01T00:00:00Z", ended_at: "2026-01-01T00:00:10Z" };
  assert.equal(timeFor("evaluate", 4000, [job]).words, "about 40 s, as job 4 went");
  assert.equal(timeFor("certify", 4000, [job]), null);
});
