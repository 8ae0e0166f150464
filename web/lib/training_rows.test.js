import assert from "node:assert/strict";
import test from "node:test";
import { rowsOf, saesOf, span } from "./training_rows.js";

const job = (id, state, name, more = {}) => ({ id, state, spec: { name, tokenization: "t", hook: "blocks.1.hook_resid_post", architecture: "topk" }, makes: { names: [name] }, ...more });
const measures = (of) => ({ step: 1, of: new Map(Object.entries(of)) });

test("what is known of each SAE comes from its result, else from its measures", () => {
  const grid = job(1, "running", "g", { makes: { names: ["g-a", "g-b"] } });
  assert.deepEqual(saesOf(grid, measures({ "g-a": { fvu: 0.3 } })).map(({ sae, fvu }) => [sae, fvu]), [["g-a", 0.3], ["g-b", undefined]]);
  const ended = { ...grid, state: "partial", result: { saes: [{ sae: "g-a", fvu: 0.1 }], failed: [{ sae: "g-b", message: "it diverged" }] } };
  assert.deepEqual(saesOf(ended, measures({ "g-a": { fvu: 0.3 } })).map(({ fvu, failed }) => [fvu, failed]), [[0.1, undefined], [undefined, "it diverged"]]);
  assert.equal(saesOf(job(2, "done", "s", { result: { fvu: 0.2 } }), undefined)[0].fvu, 0.2);
  assert.equal(saesOf(job(2, "running", "s", { result: null }), { step: 1, of: new Map([[null, { fvu: 0.5 }]]) })[0].fvu, 0.5);
  assert.deepEqual(span([{ fvu: 0.3 }, {}, { fvu: 0.1 }], "fvu"), [0.1, 0.3]);
  assert.equal(span([{}], "fvu"), null);
});

test("rows are found, sorted, and those at work stand first", () => {
  const rows = [[job(1, "done", "alpha"), 0.2], [job(2, "done", "beta"), 0.1], [job(3, "running", "gamma"), 0.9], [job(4, "failed", "delta"), undefined]].map(([one, fvu]) => ({ job: one, saes: [{ fvu }] }));
  const ids = (how) => rowsOf(rows, how).map((row) => row.job.id);
  assert.deepEqual(ids({}), [3, 4, 2, 1]);
  assert.deepEqual(ids({ sort: "fvu" }), [3, 2, 1, 4]);
  assert.deepEqual(ids({ sort: "name", state: "done" }), [1, 2]);
  assert.deepEqual(ids({ find: "resid ALPHA" }), [1]);
  assert.deepEqual(ids({ find: "nothing" }), []);
});
