import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { Sha256 } from "./sha256.js";

const expected = (bytes) => createHash("sha256").update(bytes).digest("hex");

test("it is SHA-256, at every length around a block", () => {
  for (let length = 0; length <= 200; length++) {
    const bytes = Uint8Array.from({ length }, (_, at) => (at * 37 + length) % 256);
    const digest = new Sha256();
    digest.add(bytes);
    assert.equal(digest.hex(), expected(bytes), `of ${length} bytes`);
  }
});

test("pieces of any size give what the whole gives", () => {
  const bytes = Uint8Array.from({ length: 10_000 }, (_, at) => (at * at) % 251);
  for (const piece of [1, 63, 64, 65, 1000]) {
    const digest = new Sha256();
    for (let at = 0; at < bytes.length; at += piece) digest.add(bytes.subarray(at, at + piece));
    assert.equal(digest.hex(), expected(bytes));
  }
});
