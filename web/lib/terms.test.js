import assert from "node:assert/strict";
import { test } from "node:test";
import { explained } from "./terms.js";

test("a word is explained in its singular, its plural, and with a unit behind it", () => {
  assert.match(explained("SAE"), /sparse autoencoder/);
  assert.equal(explained("SAEs"), explained("SAE"));
  assert.equal(explained("Features"), explained("feature"));
  assert.match(explained("ΔCE, nats"), /nats/);
  assert.match(explained("FVU, mean of 3"), /variance/);
});

test("what needs no explanation has none", () => {
  for (const word of ["Name", "", "Size", "constructor", undefined, 3]) assert.equal(explained(word), null);
});
