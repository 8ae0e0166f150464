import assert from "node:assert/strict";
import test from "node:test";
import { nearest, smoothed, thinned } from "./series.js";

test("what is smoothed keeps its level, its holes and its length", () => {
  assert.deepEqual(smoothed([1, null, 2], 0), [1, null, 2]);
  assert.deepEqual(smoothed([3, null, 3, 3], 5).map((value) => value && Number(value.toFixed(9))), [3, null, 3, 3]);
  const noisy = Array.from({ length: 200 }, (_, n) => 1 + (n % 2 ? 0.5 : -0.5));
  assert.ok(Math.abs(smoothed(noisy, 20).at(-1) - 1) < 0.05);
});

test("few points are drawn as they are", () => {
  const [steps, values] = [[1, 2, 3], [5, null, 7]];
  assert.deepEqual(thinned(steps, [values]), { steps, lines: [values] });
});

for (const log of [false, true]) {
  test(`of many points no peak is lost, nor the newest (${log ? "log" : "even"})`, () => {
    const steps = Array.from({ length: 100_000 }, (_, n) => 10 * (n + 1));
    const line = steps.map((_, n) => (n % 3 ? Math.sin(n / 1000) : null));
    line[41_234] = 50;
    line[77_777] = -50;
    line[99_999] = 3;
    const found = thinned(steps, [line, steps.map(() => null)], { log });
    assert.ok(found.steps.length <= 2000 && found.steps.length > 900, `${found.steps.length}`);
    assert.ok(found.steps.every((step, at) => !at || step > found.steps[at - 1]));
    assert.ok(found.lines.every(({ length }) => length === found.steps.length));
    assert.deepEqual([Math.max(...found.lines[0]), Math.min(...found.lines[0])], [50, -50]);
    assert.deepEqual([found.steps[0], found.steps.at(-1), found.lines[0].at(-1)], [10, 1_000_000, 3]);
    assert.ok(found.lines[1].every((value) => value === null));
  });
}

test("a line that grows is not drawn otherwise where it was", () => {
  const steps = Array.from({ length: 30_001 }, (_, n) => n);
  const line = steps.map((n) => Math.cos(n * n));
  const [some, more] = [30_000, 30_001].map((n) => thinned(steps.slice(0, n), [line.slice(0, n)]));
  assert.deepEqual(more.lines[0].slice(0, some.steps.length - 4), some.lines[0].slice(0, -4));
});

test("on a logarithmic axis the first steps keep every point", () => {
  const steps = Array.from({ length: 50_000 }, (_, n) => n + 1);
  const found = thinned(steps, [steps], { log: true });
  assert.deepEqual(found.steps.slice(0, 20), steps.slice(0, 20));
});

test("the nearest step is found", () => {
  assert.deepEqual([-5, 1, 1.4, 1.6, 9, 10, 99].map((x) => nearest([1, 2, 10], x)), [0, 0, 0, 1, 2, 2, 2]);
  assert.equal(nearest([], 3), -1);
});
