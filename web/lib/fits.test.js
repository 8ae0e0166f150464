import assert from "node:assert/strict";
import test from "node:test";
import { memories, verdict } from "./fits.js";

test("memories are those of the GPUs, then the machine's", () => {
  const memory = { available_bytes: 5, total_bytes: 8 };
  const gpu = { memory_free_bytes: 3, memory_total_bytes: 4, unified: false };
  assert.deepEqual(memories({ gpus: [gpu], memory }).map((one) => one.name), ["GPU", "RAM"]);
  assert.deepEqual(memories({ gpus: [gpu, gpu], memory }).map((one) => one.name), ["GPU 0", "GPU 1", "RAM"]);
  assert.deepEqual(memories({ gpus: [{ ...gpu, unified: true }], memory }), [{ name: "RAM", free: 5, total: 8 }]);
  assert.deepEqual(memories({ gpus: [{ ...gpu, memory_free_bytes: null }], memory: {} }), []);
  assert.deepEqual(memories(null), []);
});

test("what nearly fills a memory only just fits, and what is taken now may be free later", () => {
  const free = { free: 100, total: 200 };
  assert.deepEqual([90, 95, 101, 181].map((bytes) => verdict(bytes, free)), ["fits", "only just", "does not fit now", "does not fit"]);
  assert.equal(verdict(101, { free: 100, total: null }), "does not fit");
});
