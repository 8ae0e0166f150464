import assert from "node:assert/strict";
import test from "node:test";
import { chartOf, held, linesOf } from "./overlay.js";
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
    lines: [{ name: "a", values: [0.9, null, 0.5], colour: 0 }, { name: "b", values: [0.8, 0.6, null], colour: 1 }],
  });
  assert.deepEqual(chartOf(lines, "fvu", new Set(), true).steps, [10, 20, 30, 40]);
});

test("a line that is off, or has no such value, leaves the others their colours", () => {
  const lines = linesOf([one, two]);
  const off = chartOf(lines, "fvu", new Set([lines[0].key]), false);
  assert.deepEqual(off, { steps: [1, 2], lines: [{ name: "b", values: [0.8, 0.6], colour: 1 }] });
  assert.deepEqual(chartOf(lines, "kl", new Set(), false).lines.map(({ name }) => name), ["a"]);
});

test("a lone line is held against levels", () => {
  const levels = [{ name: "PCA", value: 0.7 }];
  const lines = linesOf([one, two]);
  assert.deepEqual(held(chartOf(lines.slice(0, 1), "fvu", new Set(), false), levels).lines[1], { name: "PCA", values: [0.7, 0.7], colour: 14 });
  assert.equal(held(chartOf(lines, "fvu", new Set(), false), levels).lines.length, 2);
});

test("SAEs of the same name are told apart by their training", () => {
  assert.deepEqual(linesOf([one, { ...two, names: ["a"], track: track("a", [1, {}]) }]).map(({ name }) => name), ["a (job 7)", "a (job 9)"]);
});

test("the SAEs of a grid stand in the order of their names, not in that of what was measured first", () => {
  const grid = new Map([...track("y", [1, { fvu: 1 }]), ...track("x", [1, { fvu: 1 }])]);
  assert.deepEqual(linesOf([{ id: 1, names: ["x", "y"], batch: 1, track: grid }]).map(({ name }) => name), ["x", "y"]);
});
