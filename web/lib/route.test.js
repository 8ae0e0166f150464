import assert from "node:assert/strict";
import test from "node:test";
import { parse, place } from "./route.js";

test("a place is found again by its address", () => {
  for (const [panel, open, query] of [
    ["saes", [], {}],
    ["features", ["pico", "12"], { sort: "-density", find: "a b&c=d/é%" }],
    ["models", ["a%b/c"], {}],
  ]) {
    assert.deepEqual(parse(place(panel, open, query)), { panel, open, query });
  }
});

test("what is not asked for is not in the address", () => {
  assert.equal(place("saes", [], { tag: "", sort: null, at: undefined, page: 0 }), "#/saes?page=0");
});

test("an address that leads nowhere is that of the first panel", () => {
  for (const hash of ["", "#", "#/", "#/nowhere/12?x=1"]) {
    assert.deepEqual(parse(hash), { panel: "datasets", open: [], query: {} });
  }
});

test("a broken escape stays as it was typed", () => {
  assert.deepEqual(parse("#/models/100%").open, ["100%"]);
});
