import assert from "node:assert/strict";
import test from "node:test";
import { chartOf, linesOf } from "./overlay.js";
import { take } from "./track.js";

function track(sae, ...measured) {
  const made = new Map();
  measured.forEach(([step, values]) => take(made, { step, sae, values }));
  return made;
}

const one = { id: 7, names: ["a"], batch: 10, track: track(null, [1, { fvu: 0.9 }], [3, { fvu: 0.5, kl: 1 }]) };
const two = { id: 9, names: ["b"], batch: 20, track: track("b", [1, { fvu: 0.8 }], [2, { fvu: 0.6 }]) };

test("runs of other steps lie over each other, by steps or by tokens", () => {
  const lines = linesOf([one, two]);
  assert.deepEqual(lines.map(({ name }) => name), ["a", "b"]);
  assert.deepEqual(chartOf(lines, "fvu", new Set(), false), {
    steps: [1, 2, 3],
    lines: [{ name: "a", values: [0.9, null, 0.5] }, { name: "b", values: [0.8, 0.6, null] }],
  });
  assert.deepEqual(chartOf(lines, "fvu", new Set(), true).steps, [10, 20, 30, 40]);
});

test("a line that is off, or has no such value, keeps its place and its colour", () => {
  const lines = linesOf([one, two]);
  const off = chartOf(lines, "fvu", new Set([lines[0].key]), false);
  assert.deepEqual(off, { steps: [1, 2], lines: [{ name: "a", values: [null, null] }, { name: "b", values: [0.8, 0.6] }] });
  assert.deepEqual(chartOf(lines, "kl", new Set(), false).lines[1], { name: "b", values: [null] });
});

test("SAEs of the same name are told apart by their training", () => {
  assert.deepEqual(linesOf([one, { ...two, names: ["a"], track: track("a", [1, {}]) }]).map(({ name }) => name), ["a (job 7)", "a (job 9)"]);
});
