// What the page knows. Everything that is drawn is a function of these signals; events.js fills them.

import { batch, computed, signal } from "@preact/signals";
import { get } from "./api.js";
import { keep, kept } from "./kept.js";
import { grouped, isBad, isLive } from "./lib/jobs.js";
import { measuresAfter, paceAfter } from "./lib/measures.js";

/** "loading" until the first answer, then "live" or "lost". */
export const phase = signal("loading");
/** Whether anything was ever heard of the studio: what is empty before is not known to be empty. */
export const heardOf = signal(false);
/** While lost: since when (ms), and the studio's own sentence when it has given one. */
export const loss = signal({ since: 0, reason: null });
/** Id → job, as the API gives it. */
export const jobs = signal(new Map());
/** Id of a job → what is measured of each of its SAEs (lib/measures.js). */
export const metrics = signal(new Map());
/** Id of a job → how fast it goes (lib/measures.js). */
export const paces = signal(new Map());
/** Noun → name → what is there of it. */
export const artifacts = {
  dataset: signal(new Map()),
  model: signal(new Map()),
  tokenization: signal(new Map()),
  sae: signal(new Map()),
};
/** The newest reading of the machine; null when there is none. */
export const sample = signal(null);
/** What is kept in memory for steering; null when nothing is. */
export const session = signal(null);
/** As whom the studio lets this browser in (GET /api/login); null until that is known. */
export const login = signal(/** @type {any} */ (null));
export const mayWrite = computed(() => login.value?.scope !== "read");
/** Id of a job → why the studio did not do what was asked of it. */
export const refusals = signal(new Map());

/** When the newest failure ended that somebody has seen: an ISO moment. */
const seen = signal(kept("seen") ?? "");

/** Jobs that failed and that nobody has looked at yet, the newest first. */
export const unseen = computed(() => {
  const bad = [...jobs.value.values()].filter((job) => isBad(job) && job.ended_at > seen.value);
  return bad.sort((a, b) => b.ended_at.localeCompare(a.ended_at));
});

/** Somebody has seen how a job ended, and those before it. */
export function see(job) {
  if (job.ended_at <= seen.peek()) return;
  seen.value = job.ended_at;
  keep("seen", job.ended_at);
}

export const groups = computed(() => grouped([...jobs.value.values()]));
/** The studio's time (ms): a browser's own may be wrong, as may be that of a board without a battery. */
export const clock = computed(() => (sample.value ? Date.parse(sample.value.at) : Date.now()));
/** The same to ten seconds, for what is told in minutes. */
export const slowClock = computed(() => Math.floor(clock.value / 10_000) * 10_000);

export function replaceJobs(list) {
  jobs.value = new Map(list.map((job) => [job.id, job]));
}

export function replaceArtifacts(noun, list) {
  artifacts[noun].value = new Map(list.map((one) => [one.name, one]));
}

/** Those of a noun, the newest first. */
export function newest(noun) {
  const made = (one) => one.created_at ?? "";
  return [...artifacts[noun].value.values()].sort((a, b) => made(b).localeCompare(made(a)) || b.id - a.id);
}

/** Those of a noun in lists, by what `of` says of each; found once for all who ask, not once for each row. */
export const listsOf = (noun, of) => computed(() => {
  const lists = new Map();
  for (const one of newest(noun)) lists.set(of(one), [...(lists.get(of(one)) ?? []), one]);
  return lists;
});

/** Name of an SAE → how often labels or scores of its features have come since the page was opened. */
export const labelled = signal(new Map());

/** Where the jobs go on that are older than those known; null when all are known. */
export const older = signal(null);

/** Fetch some more jobs of the past. Throws as get() does. */
export async function fetchOlder() {
  const { jobs: found, next } = await get(`/api/jobs?limit=200&cursor=${encodeURIComponent(older.peek())}`);
  const known = jobs.peek();
  batch(() => {
    jobs.value = new Map([...known, ...found.filter(({ id }) => !known.has(id)).map((job) => [job.id, job])]);
    older.value = next;
  });
}

/** Counts the connections to the studio: what it tells only once is asked for anew after each. */
export const connections = signal(0);
/** Those who are told of each metric as it comes. */
export const ofMetrics = new Set();

/** Take in events, [topic, data] each, in their order; nothing is drawn between them. */
export function take(events) {
  batch(() => events.forEach(([topic, data]) => TAKE[topic]?.(data)));
}

const TAKE = {
  job(job) {
    jobs.value = job.removed ? without(jobs.value, job.id) : along(jobs.value, job.id, job);
    if (refusals.value.has(job.id)) refusals.value = without(refusals.value, job.id);
  },
  // What comes late, after a job's end, is older than the job itself.
  progress({ job: id, ...progress }) {
    const job = jobs.value.get(id);
    if (!job || !isLive(job)) return;
    jobs.value = along(jobs.value, id, { ...job, progress });
    paces.value = along(paces.value, id, paceAfter(paces.value.get(id), progress, performance.now()));
  },
  metric({ job: id, step, sae, values }) {
    const metric = { step, sae, values };
    metrics.value = along(metrics.value, id, measuresAfter(metrics.value.get(id), metric));
    ofMetrics.forEach((tell) => tell(id, metric));
  },
  artifact(artifact) {
    const all = artifacts[artifact.noun];
    if (!all) return;
    all.value = artifact.removed ? without(all.value, artifact.name) : along(all.value, artifact.name, artifact);
  },
  labels({ sae }) {
    labelled.value = along(labelled.value, sae, (labelled.value.get(sae) ?? 0) + 1);
  },
  system(reading) {
    sample.value = reading;
  },
  session({ session: now }) {
    session.value = now;
  },
  reset(all) {
    replaceJobs(all.jobs);
  },
};

/** Say why what was asked of a job was not done, until something happens to it. */
export function refuse(id, message) {
  refusals.value = along(refusals.value, id, message);
}

const along = (map, key, value) => new Map(map).set(key, value);

function without(map, key) {
  const rest = new Map(map);
  rest.delete(key);
  return rest;
}
