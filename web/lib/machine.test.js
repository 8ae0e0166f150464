import assert from "node:assert/strict";
import test from "node:test";
import { before, memoryOfEnded, overTime, remedy, unmeasured, versions, withSample } from "./machine.js";

const GPU = { name: "RTX", memory_total_bytes: 24e9, memory_free_bytes: 6e9, share: 0.43, celsius: 61, watts: 90, unified: false };

function sample(second, more = {}) {
  return {
    at: new Date(Date.UTC(2026, 6, 1, 12, 0, second)).toISOString(),
    cpu: { share: second ? 0.5 : null, count: 8 },
    memory: { total_bytes: 16e9, available_bytes: 12e9, swap_total_bytes: 0, swap_free_bytes: 0 },
    temperatures: [], gpus: [], jetson: null, ...more,
  };
}

test("a machine without a GPU has what is measured, and says what is not", () => {
  const samples = [0, 60, 120].map((second) => sample(second));
  const { steps, charts } = overTime(samples);
  assert.deepEqual(steps, [-10, -2, -1, 0]);
  assert.deepEqual(charts.map(({ title }) => title), ["CPU", "RAM"]);
  assert.deepEqual(charts[0].lines, [{ name: "all cores", values: [null, null, 0.5, 0.5] }]);
  assert.deepEqual(charts[1].lines, [{ name: "in use", values: [null, 4e9, 4e9, 4e9] }]);
  assert.deepEqual(charts[1].range, [0, 16e9]);
  assert.equal(unmeasured(samples)[0], "No GPU here: jobs run on the processor.");
  assert.equal(unmeasured(samples).length, 4);
  assert.deepEqual([overTime([]), unmeasured([])], [{ steps: [], charts: [] }, []]);
});

test("GPUs have a line each, and a board that shares its memory has none for it", () => {
  const two = [sample(600, { gpus: [GPU, { ...GPU, watts: null, share: 0.1 }], temperatures: [{ name: "cpu", celsius: 48 }, { name: "x", celsius: null }] })];
  const found = Object.fromEntries(overTime(two).charts.map((one) => [one.title, one]));
  assert.deepEqual(found.GPU.lines.map(({ name, values }) => [name, values.at(-1)]), [["GPU 0", 0.43], ["GPU 1", 0.1]]);
  assert.deepEqual(found["GPU memory"].lines[0].values.at(-1), 18e9);
  assert.deepEqual(found.Temperature.lines.map(({ name, values }) => [name, values.at(-1)]), [["GPU 0", 61], ["GPU 1", 61], ["warmest sensor", 48]]);
  assert.deepEqual(found.Power.lines.map(({ name }) => name), ["GPU 0"]);
  const board = [sample(0, { gpus: [{ ...GPU, unified: true, share: null, watts: null }], jetson: { watts: 7, nvmap_bytes: 2e9 } })];
  const titles = overTime(board).charts.map(({ title }) => title);
  assert.deepEqual(titles, ["RAM", "Temperature", "Power"]);
  assert.deepEqual(overTime(board).charts[0].lines.map(({ name }) => name), ["in use", "held for the GPU"]);
  assert.deepEqual(unmeasured(board).slice(0, 2), ["How busy the GPU is cannot be read here.", "The GPU shares the machine's memory."]);
});

test("ten minutes are kept, and none is there twice", () => {
  let samples = [];
  for (let second = 0; second <= 900; second++) samples = withSample(samples, sample(second));
  assert.equal(samples.length, 601);
  assert.equal(withSample(samples, sample(900)), samples);
  assert.equal(withSample(samples, null), samples);
});

test("moments are told from now", () => {
  assert.deepEqual([0, -0.5, -1, -9.983, -2.5].map(before), ["now", "−30 s", "−1 min", "−9 min 59 s", "−2 min 30 s"]);
});

test("of ended jobs both are told where both are known", () => {
  const job = (id, predicted, measured) => ({ id, ended_at: `${id}`, plan: predicted && { peak_bytes: predicted }, result: measured && { peak_bytes: measured } });
  const found = memoryOfEnded([job(1, 100, 120), job(2, null, 5), job(3, 5, null), job(4, 10, 5)]);
  assert.deepEqual(found.map(({ job: { id }, off }) => [id, Number(off.toFixed(3))]), [[4, -0.5], [1, 0.2]]);
});

test("versions are read from doctor's sentence", () => {
  assert.deepEqual(versions("torch 2.13.0+cpu, huggingface-hub 2.4.0"), [["torch", "2.13.0+cpu"], ["huggingface-hub", "2.4.0"]]);
});

test("of an advice only what belongs in a terminal is to be copied", () => {
  assert.deepEqual(remedy("run: chmod go-w /data"), { words: "", line: "chmod go-w /data" });
  assert.deepEqual(remedy("sudo timedatectl set-ntp true"), { words: "", line: "sudo timedatectl set-ntp true" });
  const joined = "run: sudo usermod -aG render,video ann, and log in anew";
  assert.deepEqual(remedy(joined), { words: joined, line: "sudo usermod -aG render,video ann" });
  const either = "choose another with --data, or run: sudo chown -R $USER /data";
  assert.deepEqual(remedy(either), { words: either, line: "sudo chown -R $USER /data" });
  const only = "close other programs";
  assert.deepEqual(remedy(only), { words: only, line: "" });
});
