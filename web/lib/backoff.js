// How long to wait before trying again. Pure.

const LONGEST_MS = 15_000;

/** Milliseconds before try `n` (from 0): doubling from 1 s, and by chance (0 to 1) not all pages at once. */
export const delayMs = (n, chance) => Math.min(LONGEST_MS, 1000 * 2 ** n) * (0.5 + chance / 2);
