import assert from "node:assert/strict";
import test from "node:test";
import { about, ago, amount, amountOf, between, characters, count, duration, elapsed, number, share, size } from "./format.js";

test("what is not known is a dash", () => {
  for (const show of [count, number, share, size, duration, about]) {
    for (const unknown of [null, undefined, NaN, Infinity, "7"]) assert.equal(show(unknown), "—");
  }
  assert.equal(ago(null, 0), "—");
});

test("numbers are those of the command line", () => {
  assert.equal(count(1228800), "1,228,800");
  assert.equal(number(0.12345), "0.123");
  assert.equal(number(31.46, 1), "31.5");
  assert.deepEqual([0, 0.004, 0.0123, 0.1, 0.875, 1].map(share), ["0%", "0.4%", "1.2%", "10%", "88%", "100%"]);
  assert.deepEqual([0, 999, 1000, 5.6e6, 75e9, 2e12].map(size), ["0 B", "999 B", "1.0 kB", "5.6 MB", "75.0 GB", "2.0 TB"]);
  assert.equal(amount(1000, "tokens"), "1,000 tokens");
  assert.equal(amount(3, ""), "3");
});

test("a part of a whole names the unit once when it can", () => {
  assert.equal(amountOf(1000, 2000, "tokens"), "1,000 of 2,000 tokens");
  assert.equal(amountOf(1, 2, ""), "1 of 2");
  assert.equal(amountOf(5e6, 12.34e6, "bytes"), "5.0 of 12.3 MB");
  assert.equal(amountOf(5e5, 12.34e6, "bytes"), "500.0 kB of 12.3 MB");
});

test("what took long is told exactly, what will only roughly", () => {
  assert.deepEqual([0.42, 12, 59.6, 185, 7800].map(duration), ["0.4 s", "12 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]);
  assert.equal(duration(-3), "0.0 s");
  assert.deepEqual([5.9, 185].map(elapsed), ["5 s", "3 min 05 s"]);
  assert.deepEqual(
    [3, 12, 52, 58, 754, 3590, 7800, 10790].map(about),
    ["a few seconds", "about 10 s", "about 50 s", "about 1 min", "about 13 min", "about 1 h", "about 2 h 10 min", "about 3 h"],
  );
});

test("moments are told by the studio's clock", () => {
  const at = Date.parse("2026-07-01T12:00:00.000Z");
  assert.equal(ago("2026-07-01T11:59:59.500Z", at), "now");
  assert.equal(ago("2026-07-01T12:00:05.000Z", at), "now");
  assert.equal(ago("2026-07-01T11:59:59.000Z", at), "1 second ago");
  assert.equal(ago("2026-07-01T09:00:00.000Z", at), "3 hours ago");
  assert.equal(ago("2026-06-29T11:00:00.000Z", at), "2 days ago");
  assert.equal(between("2026-07-01T11:59:58.500Z", "2026-07-01T12:00:00.000Z"), 1.5);
  assert.equal(between(null, "2026-07-01T12:00:00.000Z"), null);
});

test("characters are counted as the studio counts them", () => {
  assert.deepEqual(["", "naïve", "🙂🙂", "שלום"].map(characters), [0, 5, 2, 4]);
});
