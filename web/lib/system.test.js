import assert from "node:assert/strict";
import test from "node:test";
import { readings } from "./system.js";

const GPU = { name: "RTX", memory_total_bytes: 24e9, memory_free_bytes: 6e9, share: 0.43, celsius: 61, watts: 90, unified: false };
const SAMPLE = {
  at: "2026-07-01T12:00:00.000Z",
  cpu: { share: 0.5, count: 8 },
  memory: { total_bytes: 128e9, available_bytes: 28e9, swap_total_bytes: 0, swap_free_bytes: 0 },
  disk: { path: "/data", total_bytes: 1e12, free_bytes: 25e10 },
  temperatures: [{ name: "cpu", celsius: 48 }, { name: "gone", celsius: null }],
  gpus: [GPU],
  jetson: null,
};

const shown = (sample) => Object.fromEntries(readings(sample).map(({ name, value }) => [name, value]));

test("a reading shows what is used of everything", () => {
  assert.deepEqual(shown(SAMPLE), {
    CPU: "50%", RAM: "100 / 128 GB", GPU: "43%", "GPU memory": "18.0 / 24.0 GB", Warmest: "61 °C", Disk: "250.0 GB free",
  });
  assert.deepEqual(readings(SAMPLE).map(({ used }) => used), [0.5, 100 / 128, 0.43, 0.75, null, 0.75]);
});

test("what is not known is a dash, and nothing moves when it comes", () => {
  const names = Object.keys(shown(SAMPLE));
  const without = { ...SAMPLE, gpus: [], temperatures: [], cpu: { share: null, count: 8 } };
  for (const sample of [null, without]) assert.deepEqual(Object.keys(shown(sample)), names);
  assert.deepEqual(new Set(Object.values(shown(null))), new Set(["—"]));
  assert.equal(shown(without).CPU, "—");
});

test("several GPUs are numbered, and one that shares the machine's memory says so", () => {
  const two = readings({ ...SAMPLE, gpus: [GPU, { ...GPU, unified: true, share: null }] });
  assert.deepEqual(two.map(({ name }) => name).filter((name) => name.startsWith("GPU")),
    ["GPU 0", "GPU 0 memory", "GPU 1", "GPU 1 memory"]);
  assert.match(two.find(({ name }) => name === "GPU 1 memory").about, /shares the machine's memory/);
});
