import assert from "node:assert/strict";
import test from "node:test";
import { mean, measured, measuresAfter } from "./measures.js";

test("each SAE has its own values, and what several have is shown as their mean", () => {
  let measures = measuresAfter(undefined, { step: 1, sae: "a", values: { fvu: 0.5, eval_fvu: 0.4 } });
  assert.equal(mean(measures, "fvu"), 0.5);
  measures = measuresAfter(measures, { step: 2, sae: "b", values: { fvu: 0.25 } });
  measures = measuresAfter(measures, { step: 2, sae: null, values: { tokens_per_s: 7 } });
  assert.deepEqual([measures.step, measured(measures)], [2, 2]);
  assert.deepEqual(["fvu", "eval_fvu", "tokens_per_s", "kl"].map((name) => mean(measures, name)), [0.375, 0.4, 7, null]);
  measures = measuresAfter(measures, { step: 3, sae: "b", values: { fvu: null } });
  assert.equal(mean(measures, "fvu"), 0.5);
});

test("of what has not been measured nothing is known", () => {
  assert.deepEqual([measured(undefined), mean(undefined, "fvu")], [0, null]);
  assert.equal(measured(measuresAfter(undefined, { step: 1, values: { fvu: 1 } })), 0);
});
