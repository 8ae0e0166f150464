import assert from "node:assert/strict";
import test from "node:test";
import { changes, details, done, grouped, lastLine, metricsAfter, outcome, panelOf, reason, stage, title, verbs, wait } from "./jobs.js";

let newest = 0;
const SPEC = { name: "pico-l3", tokenization: "python-pico", hook: "blocks.3.hook_resid_post", width: 2048, k: 32,
  tokens: 2_000_000, batch_tokens: 4096, steps: null };
const job = (state, more = {}) => ({
  id: ++newest, kind: "train", lane: "gpu", state, priority: 0, created_at: "2026-07-01T12:00:00.000Z", started_at: null,
  ended_at: null, spec: SPEC, progress: null, result: null, error: null, attempts: 1, after: [], makes: null, ...more,
});
const ended = (state, minute, more = {}) => job(state, {
  started_at: "2026-07-01T12:00:00.000Z", ended_at: `2026-07-01T12:${String(minute).padStart(2, "0")}:00.000Z`, ...more,
});

test("what runs comes first to last, what waits in the order in which it will run", () => {
  const [a, b] = [job("running"), job("stopping")];
  const [late, urgent, paused] = [job("queued"), job("queued", { priority: 5 }), job("paused")];
  const groups = grouped([late, b, paused, urgent, a]);
  assert.deepEqual(groups.live, [a, b]);
  assert.deepEqual(groups.waiting, [urgent, late, paused]);
  assert.deepEqual(groups.ended, []);
});

test("of the jobs that ended lately, those that went wrong come first, each kind the newest first", () => {
  const [good, bad, partial, stopped] = [ended("done", 9), ended("failed", 3), ended("partial", 5), ended("stopped", 7)];
  assert.deepEqual(grouped([good, bad, partial, stopped]).ended, [partial, bad, good, stopped]);
  const many = Array.from({ length: 30 }, (_, minute) => ended("done", minute));
  const shown = grouped([bad, ...many]).ended;
  assert.deepEqual(shown.slice(0, 20), many.slice(10).reverse());
  assert.deepEqual(shown.slice(20).map(({ ended_at }) => ended_at.slice(14, 16)), ["09", "08", "07", "06", "05", "04", "03", "03", "02", "01", "00"]);
});

test("a job is called by what it does, and to what", () => {
  assert.deepEqual(title(job("queued")), ["Train SAE", "pico-l3"]);
  assert.deepEqual(title(job("queued", { kind: "extract", spec: { sae: "pico-l3" } })), ["Extract features of", "pico-l3"]);
  assert.deepEqual(title(job("queued", { kind: "compare", spec: { saes: ["a", "b"] } })), ["Compare", "a, b"]);
  assert.deepEqual(title({ id: 7, kind: "label_all", spec: {} }), ["label all", "job 7"]);
  assert.deepEqual(details(job("queued")), ["python-pico", "blocks.3.hook_resid_post", "width 2,048", "k 32"]);
  assert.deepEqual(details({ kind: "label_all", spec: null }), []);
});

test("a training of several SAEs says what it varies, and how many they are", () => {
  const spec = { ...SPEC, hook: ["a", "b"], width: [64, 128, 256], k: 8, seed: 0 };
  const makes = { noun: "sae", name: "x", names: Array(6).fill("x") };
  assert.deepEqual(details(job("queued", { spec, makes })), ["python-pico", "2 hooks × 3 widths: 6 SAEs", "k 8"]);
  const result = { saes: [{ fvu: 0.1 }, { fvu: 0.3 }, { fvu: null }] };
  assert.equal(outcome(ended("done", 2, { spec, result })), "Done in 2 min 00 s, 3 SAEs, FVU 0.100 to 0.300");
  assert.equal(reason(job("paused", { error: { code: "disk_full", message: "the disk is full" } })), "the disk is full");
});

test("how far a stage is, as far as that is known", () => {
  const at = (progress) => job("running", { progress: progress && { unit: "tokens", eta_s: null, ...progress } });
  assert.deepEqual([done(at(null)), stage(at(null))], [null, ["starting", ""]]);
  const half = at({ stage: "train", done: 1e6, total: 2e6 });
  assert.deepEqual([done(half), stage(half)], [0.5, ["train", "1,000,000 of 2,000,000 tokens"]]);
  assert.equal(done(at({ stage: "train", done: 3e6, total: 2e6 })), 1);
  assert.deepEqual(stage(at({ stage: "load model", done: 0, total: 1 })), ["load model", ""]);
  assert.deepEqual(stage(at({ stage: "look", done: 12, total: null })), ["look", "12 tokens"]);
});

test("a waiting job says what it waits for, and not for what is done", () => {
  const [over, busy] = [ended("done", 1), job("running")];
  const jobs = new Map([over, busy].map((one) => [one.id, one]));
  assert.equal(wait(job("queued", { after: [over.id, busy.id] }), jobs), `Queued behind job ${busy.id}`);
  assert.equal(wait(job("queued", { after: [over.id] }), jobs), "Queued");
  assert.equal(wait(job("paused", { progress: { done: 1, total: 4 } }), jobs), "Paused at 25%");
});

test("an outcome is said in words, with its reason", () => {
  assert.equal(outcome(ended("done", 2, { result: { fvu: 0.1234, l0: 31.9 } })), "Done in 2 min 00 s, FVU 0.123 at L0 31.9");
  const failed = ended("failed", 1, { attempts: 3, error: { code: "invalid", message: "is not there", field: "source" } });
  assert.equal(outcome(failed), "Failed after 1 min 00 s, attempt 3");
  assert.equal(reason(failed), "source: is not there");
  assert.equal(outcome(ended("partial", 1)), "Only partly done after 1 min 00 s");
  assert.equal(outcome(job("stopped")), "Stopped");
  assert.equal(outcome(ended("stopped", 1, { progress: { done: 1, total: 2 } })), "Stopped after 1 min 00 s at 50%");
});

test("the worker's last line is told where it says more than the reason", () => {
  const failed = (log) => ended("failed", 1, { error: { code: "internal", message: "it ended by SIGKILL", log } });
  assert.equal(lastLine(failed("one\n  two  \n\n")), "two");
  assert.equal(lastLine(failed("error: it ended by SIGKILL")), "");
  assert.deepEqual([lastLine(failed(null)), lastLine(ended("done", 1)), lastLine(ended("stopped", 1))], ["", "", ""]);
});

test("there is a button for what the studio would do, and for nothing else", () => {
  const all = ["queued", "running", "pausing", "paused", "stopping", "interrupted", "done", "partial", "failed", "stopped"];
  assert.deepEqual(all.map((state) => verbs({ state }).join(" ")),
    ["stop", "pause stop", "stop", "resume stop", "", "stop", "", "retry", "retry", "retry"]);
});

test("the newest metrics are asked for, not the whole history", () => {
  const training = (stage, done, state = "running") => job(state, { progress: { stage, done } });
  assert.equal(metricsAfter(training("train", 4096 * 50), undefined), -1);
  assert.equal(metricsAfter(training("train", 4096 * 5000), undefined), 4000);
  assert.equal(metricsAfter(training("train", 4096 * 5000), 4990), 4990);
  assert.equal(metricsAfter(training("train, pass 1 of 2", 4096 * 5000), undefined), 4000);
  assert.equal(metricsAfter(training("measure", 7), undefined), -1);
  assert.equal(metricsAfter(training("load model", 0), undefined), null);
  assert.equal(metricsAfter(training("train", 4096, "done"), undefined), null);
  assert.equal(metricsAfter(job("queued"), 3), null);
  assert.equal(metricsAfter(job("running", { kind: "tokenize", progress: { stage: "train", done: 1 } }), 3), null);
});

test("changes of state are told, and nothing else is", () => {
  const [a, b, c] = [job("running"), job("queued"), job("queued")];
  const map = (...jobs) => new Map(jobs.map((one) => [one.id, one]));
  const after = map({ ...a, state: "done" }, { ...b, progress: { done: 1 } }, c);
  assert.deepEqual(changes(map(a, b), after), ["Train SAE pico-l3: done", "Train SAE pico-l3: queued"]);
});

test("every job belongs to a panel", () => {
  assert.deepEqual(["tokenize", "push", "score"].map((kind) => panelOf({ kind })), ["datasets", "saes", "features"]);
});
