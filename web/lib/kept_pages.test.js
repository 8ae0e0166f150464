import assert from "node:assert/strict";
import test from "node:test";
import { KeptPages, MOST } from "./kept_pages.js";
import { PAGE } from "./virtual.js";

const rested = () => new Promise((done) => setTimeout(done, 80));

/** A list whose rows are their places, and what was asked of it. */
function list({ answers = true } = {}) {
  const asked = [];
  const pages = new KeptPages(
    (page, signal) => {
      asked.push({ page, signal });
      return answers ? Promise.resolve(Array.from({ length: PAGE }, (_, n) => page * PAGE + n)) : new Promise(() => {});
    },
    () => {},
    (error) => assert.fail(error),
  );
  return { pages, asked, numbers: () => asked.map((one) => one.page) };
}

test("what is in sight comes, with the page that is next", async () => {
  const { pages, numbers } = list();
  pages.look(20, 30);
  await rested();
  assert.deepEqual(numbers(), [0, 1]);
  assert.deepEqual([pages.row(0), pages.row(99), pages.row(100)], [0, 99, undefined]);
});

test("what is dragged by is never asked for, and what is on its way is given up", async () => {
  const { pages, asked, numbers } = list({ answers: false });
  pages.look(0, 5);
  await rested();
  for (let at = 1000; at <= 90_000; at += 1000) pages.look(at, at + 5);
  await rested();
  assert.ok(asked[0].signal.aborted);
  assert.deepEqual(numbers(), [0, 1799, 1800]);
});

test("no more than twenty pages are kept, and those in sight are among them", async () => {
  const { pages } = list();
  for (let at = 50; at < 40 * PAGE; at += PAGE) {
    pages.look(at, at + 10);
    pages.look(0, 10);
    pages.look(at, at + 10);
    await rested();
    assert.equal(pages.row(at), at);
  }
  assert.equal(pages.pages.size, MOST);
  assert.equal(pages.row(10), 10); // looked at all the while
  assert.equal(pages.row(5 * PAGE), undefined);
});

test("rows stay while they are asked for anew", async () => {
  const { pages, numbers } = list();
  pages.look(0, 5);
  await rested();
  pages.renew();
  assert.equal(pages.row(0), 0);
  assert.deepEqual(numbers(), [0, 0]);
});
