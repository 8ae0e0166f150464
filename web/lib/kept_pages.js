// The pages of a long list that are at hand: those in sight are asked for once the eye rests, the others given up. Pure
// but for time: `ask` is given.

import { PAGE, pagesOf } from "./virtual.js";

export const MOST = 20; // pages that are kept
const RESTS_MS = 50; // a list that is dragged by is not asked for
const AROUND = 40; // rows beyond those in sight that are asked for as well

export class KeptPages {
  /**
   * @param {(page: number, signal: AbortSignal) => Promise<object[]>} ask for the rows of a page
   * @param {() => void} came is told when rows have come
   * @param {(error: Error) => void} failed is told why they have not
   */
  constructor(ask, came, failed) {
    this.ask = ask;
    this.came = came;
    this.failed = failed;
    this.pages = new Map(); // number → {rows, stale}, that which was in sight last at the end
    this.asked = new Map(); // number → AbortController
    this.wanted = [];
    this.timer = 0;
  }

  /** The row at a place; undefined when it has not come. */
  row(at) {
    return this.pages.get(Math.floor(at / PAGE))?.rows[at % PAGE];
  }

  /** Rows `first` to `last` are in sight: what they lack comes, what is on its way for others is given up. */
  look(first, last) {
    this.wanted = pagesOf(Math.max(first - AROUND, 0), last + AROUND);
    for (const page of this.wanted) this.#touch(page);
    for (const [page, control] of this.asked) if (!this.wanted.includes(page)) this.#giveUp(page, control);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#askForWanted(), this.pages.size ? RESTS_MS : 0);
  }

  /** What is known may have changed: rows stay until they have come anew. */
  renew() {
    for (const [page, control] of this.asked) this.#giveUp(page, control);
    for (const kept of this.pages.values()) kept.stale = true;
    this.#askForWanted();
  }

  /** Nobody looks any more. */
  end() {
    clearTimeout(this.timer);
    for (const [page, control] of this.asked) this.#giveUp(page, control);
  }

  #touch(page) {
    const kept = this.pages.get(page);
    if (!kept) return;
    this.pages.delete(page);
    this.pages.set(page, kept);
  }

  #giveUp(page, control) {
    this.asked.delete(page);
    control.abort();
  }

  #askForWanted() {
    for (const page of this.wanted) if (!this.asked.has(page) && this.pages.get(page)?.stale !== false) this.#askFor(page);
  }

  async #askFor(page) {
    const control = new AbortController();
    this.asked.set(page, control);
    try {
      const rows = await this.ask(page, control.signal);
      if (control.signal.aborted) return;
      this.pages.delete(page);
      this.pages.set(page, { rows, stale: false });
      for (const oldest of this.pages.keys()) if (this.pages.size > MOST) this.pages.delete(oldest);
      this.came();
    } catch (error) {
      if (!control.signal.aborted) this.failed(error);
    } finally {
      if (this.asked.get(page) === control) this.asked.delete(page);
    }
  }
}
