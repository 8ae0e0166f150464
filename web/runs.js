// The measurements of the trainings that are looked at: fetched when the page comes to them and after each connection,
// and followed as they come.

import { computed, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { get, said } from "./api.js";
import { isLive } from "./lib/jobs.js";
import { newestStep, take } from "./lib/track.js";
import { connections, jobs, ofMetrics } from "./state.js";

const NOTHING = { job: null, track: new Map(), failed: null };
const DRAW_MS = 500; // there are 10 measurements a second, and a line of some hundred pixels

/** Counts up when there is something new to draw. */
const news = signal(0);
const shown = new Map(); // id of a job → {job, track, failed}
const coming = new Map(); // id → {track, held: what came meanwhile}, until it is whole

let timer = 0;

/** Nothing is drawn while nobody looks: then the browser gives no frame. */
function draw() {
  timer ||= setTimeout(() => requestAnimationFrame(() => {
    timer = 0;
    news.value++;
  }), DRAW_MS);
}

ofMetrics.add((id, metric) => {
  if (coming.has(id)) return coming.get(id).held.push(metric);
  if (!shown.has(id)) return;
  take(shown.get(id).track, metric);
  draw();
});

async function load(id) {
  const mine = { track: new Map(), held: [] };
  coming.set(id, mine);
  const still = () => coming.get(id) === mine;
  try {
    const job = jobs.peek().get(id) ?? (await get(`/api/jobs/${id}`)); // the page keeps the newest only
    for (let after = -1; after !== null; ) {
      const page = await get(`/api/jobs/${id}/metrics?after_step=${after}`);
      if (!still()) return;
      page.metrics.forEach((one) => take(mine.track, one));
      after = page.next;
    }
    const heard = mine.held.filter((one) => one.step > newestStep(mine.track, one.sae ?? null));
    heard.forEach((one) => take(mine.track, one));
    shown.set(id, { job, track: mine.track, failed: null });
  } catch (error) {
    if (!still()) return;
    shown.set(id, { ...NOTHING, ...shown.get(id), failed: said(error) });
  }
  coming.delete(id);
  news.value++;
}

/** Keep only what is still looked at. */
function keep(ids) {
  for (const of of [shown, coming]) [...of.keys()].filter((id) => !ids.includes(id)).forEach((id) => of.delete(id));
}

/**
 * What is measured of these trainings: `{id, job, track, failed}` each (lib/track.js), of which `at` is another number
 * when there is more. `job` is as it was when it was fetched: its spec, not how far it is.
 * @param {number[]} ids
 */
export function useRuns(ids) {
  const which = ids.join();
  // A training that starts again may have gone back to a checkpoint.
  const turns = useMemo(() => computed(() => ids.map((id) => isLive(jobs.value.get(id) ?? {})).join()), [which]);
  const [turn, connection] = [turns.value, connections.value];
  useEffect(() => {
    keep(ids);
    ids.forEach(load);
  }, [which, turn, connection]);
  useEffect(() => () => keep([]), []);
  return { runs: ids.map((id) => ({ ...NOTHING, ...shown.get(id), id })), at: news.value };
}
