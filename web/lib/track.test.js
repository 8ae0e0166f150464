import assert from "node:assert/strict";
import test from "node:test";
import { emptyLine, grow, merged, newestStep, take } from "./track.js";

test("a line keeps at most so many points, evenly, the first and the newest among them", () => {
  const line = emptyLine();
  for (let step = 1; step <= 60_000; step++) {
    grow(line, step, step / 10, 100);
    assert.ok(line.steps.length <= 101);
    assert.equal(line.steps.at(-1), step);
  }
  assert.equal(line.steps[0], 1);
  assert.deepEqual(line.values, line.steps.map((step) => step / 10));
  const gaps = new Set(line.steps.slice(1, -1).map((step, at) => step - line.steps[at]));
  assert.deepEqual([...gaps], [line.every]);
  assert.ok(line.steps.length > 50);
});

test("who goes back to a checkpoint measures anew from there", () => {
  const line = emptyLine();
  for (let step = 1; step <= 50; step++) grow(line, step, 1, 10);
  grow(line, 20, 2, 10);
  assert.equal(line.steps.at(-1), 20);
  assert.ok(line.steps.every((step, at) => at === 0 || step > line.steps[at - 1]));
  for (let step = 21; step <= 50; step++) grow(line, step, 2, 10);
  assert.deepEqual(line.values, line.steps.map((step) => (step < 20 ? 1 : 2)));
});

test("each SAE has a line for each value, without holes, and what is no number is passed by", () => {
  const track = new Map();
  take(track, { step: 1, sae: "a", values: { fvu: 1, kl: null } });
  take(track, { step: 2, sae: "a", values: { fvu: 0.5, ce_delta: 3 } });
  take(track, { step: 2, values: { fvu: 0.7 } });
  assert.deepEqual([...track.keys()], ["a", null]);
  assert.deepEqual([...track.get("a").keys()], ["fvu", "ce_delta"]);
  assert.deepEqual([newestStep(track, "a"), newestStep(track, null), newestStep(track, "b")], [2, 2, -1]);
});

test("lines of other steps share an axis, with holes", () => {
  assert.deepEqual(merged([{ name: "a", steps: [1, 3], values: [1, 2] }, { name: "b", steps: [2, 3], values: [3, 4] }]), {
    steps: [1, 2, 3],
    lines: [{ name: "a", values: [1, null, 2] }, { name: "b", values: [null, 3, 4] }],
  });
  const [steps, values] = [[1, 2], [3, 4]];
  const alone = merged([{ name: "a", steps, values }]);
  assert.deepEqual(alone, { steps: [1, 2], lines: [{ name: "a", values: [3, 4] }] });
  assert.notEqual(alone.steps, steps); // what is drawn does not change under the chart
  assert.deepEqual(merged([]), { steps: [], lines: [] });
});
