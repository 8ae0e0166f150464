import assert from "node:assert/strict";
import test from "node:test";
import { asked, deed, editsFrom, editsOf, lineOf, saidEdits, word, written } from "./edits.js";

const edit = (fields) => ({ sae: "s", feature: 1, op: "add", strength: 1, scope: "all", off: false, ...fields });

test("edits go into an address and come out of it as they were", () => {
  const edits = [
    edit({ feature: 12, strength: 1.5 }),
    edit({ feature: 7, op: "ablate" }),
    edit({ sae: "other-s.2", feature: 3, op: "clamp", strength: 2, scope: "generated" }),
    edit({ feature: 9, strength: -1, off: true }),
    edit({ feature: 8, op: "scale", strength: 0, scope: "from:5", off: true }),
    edit({ feature: 5, strength: null }),
  ];
  assert.equal(written(edits, "s"), "12:1.5,7:ablate,other-s.2/3:clamp=2@generated,9:-1!,8:scale=0@from:5!,5");
  assert.deepEqual(editsOf(written(edits, "s"), "s"), edits);
});

test("what is no edit is left out of an address, as is a feature that comes twice", () => {
  assert.deepEqual(editsOf("x,,12:1:2:3,7:ablate,7:2,-4", "s").map(({ feature, op }) => [feature, op]), [[12, "add"], [7, "ablate"]]);
  assert.equal(editsOf("12:nan", "s")[0].strength, null);
  assert.deepEqual(editsOf(undefined, "s"), []);
});

test("only what is on is asked for", () => {
  assert.deepEqual(asked([edit({ strength: 2 }), edit({ off: true })]), [{ sae: "s", feature: 1, op: "add", strength: 2, scope: "all" }]);
  assert.equal(asked([edit({ strength: null })])[0].strength, 1); // until calibration has found a better one
  assert.deepEqual(editsFrom([{ feature: 1, strength: 2, sae: null }], "s"), [edit({ strength: 2 })]);
});

test("edits are said in words", () => {
  assert.equal(saidEdits([edit({ strength: 1.23456 }), edit({ sae: "o", strength: -2 }), edit({ op: "scale", strength: 3, scope: "from:2" })], "s"), "1 +1.23, o/1 −2, 1 × 3 (from:2)");
  assert.deepEqual([0, -0, null].map((strength) => deed({ strength })), ["0", "0", "…"]);
  assert.deepEqual([[1, "add"], [-1, "add"], [0, "add"], [1, "scale"], [0.5, "scale"], [-1, "scale"], [1, "ablate"], [2, "clamp"]].map(([strength, op]) => word({ op, strength })),
    ["amplified", "suppressed", "as it is", "as it is", "weakened", "suppressed", "ablated", "held"]);
});

test("the line for the terminal says all that matters, or there is none", () => {
  const edits = [edit({ strength: 2, scope: "generated" }), edit({ sae: "o", feature: 4, op: "ablate", scope: "generated" }), edit({ off: true })];
  assert.equal(lineOf("s", "it's $1", edits, { max_tokens: 60 }), "mistudio steer s 'it'\\''s $1' -f 1:2 -f o/4:ablate --scope=generated --max-tokens=60");
  assert.equal(lineOf("s", "x", [...edits, edit({ feature: 9 })], {}), null);
});
