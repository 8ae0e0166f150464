// Follows the studio: its event stream, and after each (re)connection the whole state anew.
//
// Events that come while the state is being fetched wait and are applied on top of it: whatever they tell, the newest
// event of a job is never older than what the state said of it.

import { batch } from "@preact/signals";
import { ApiError, get, pages } from "./api.js";
import { delayMs } from "./lib/backoff.js";
import { UNFINISHED, metricsAfter } from "./lib/jobs.js";
import { artifacts, connections, heardOf, jobs, login, loss, metrics, older, phase, replaceArtifacts, replaceJobs, sample, session, take } from "./state.js";

const TOPICS = ["job", "progress", "metric", "artifact", "labels", "system", "session"];
const CHECK_MS = 5000;
const GATHER_MS = 250; // readings come 10 times a second of each job: more often than anybody can read
const SILENCE_MS = 20_000; // there is a reading of the machine each second: without any, the line is dead

let source = null;
let loading = 0; // counts up: an answer to an older connection is dropped
let held = null; // events that wait for the state; null when they need not
let readings = []; // that are not taken in yet
let gathering = 0;
let tries = 0;
let timer = 0;
let heardAt = 0;

/** Follow for as long as the page is looked at: a hidden one would hold one of the browser's few connections. */
export function follow() {
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("online", open);
  setInterval(check, CHECK_MS);
  open();
}

/** Connect now, whatever there was before. */
export function open() {
  close();
  if (document.hidden) return;
  heardAt = performance.now();
  const stream = new EventSource(`/api/events?topics=${TOPICS.join(",")}`);
  source = stream;
  stream.onopen = () => connected(++loading);
  stream.onerror = () => broken(stream);
  for (const topic of [...TOPICS, "reset"]) stream.addEventListener(topic, hear);
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
  loading++;
}

function hear({ type, data }) {
  heardAt = performance.now();
  const event = [type, JSON.parse(data)];
  if (held) held.push(event);
  else if (type === "progress" || type === "metric") gather(event);
  else settle(event);
  if (type === "reset") connected(++loading); // of artifacts it tells the names alone
}

function gather(reading) {
  readings.push(reading);
  gathering ||= setTimeout(settle, GATHER_MS);
}

/** Take in the readings so far, then what came after them. */
function settle(event) {
  clearTimeout(gathering);
  gathering = 0;
  take(event ? [...readings, event] : readings);
  readings = [];
}

async function connected(turn) {
  heardAt = performance.now();
  settle();
  held = [];
  try {
    const nouns = Object.keys(artifacts);
    const asked = nouns.map((noun) => pages(`/api/${noun}s?limit=1000`, `${noun}s`));
    const others = ["/api/login", "/api/system", "/api/session"].map((path) => get(path));
    const [everything, as, reading, kept, ...lists] = await Promise.all([everyJob(), ...others, ...asked]);
    if (turn !== loading) return;
    batch(() => {
      replaceJobs(everything);
      nouns.forEach((noun, at) => replaceArtifacts(noun, lists[at]));
      login.value = as;
      sample.value = reading;
      session.value = kept.session;
      take(held);
      heardOf.value = true;
      phase.value = "live";
      connections.value++;
    });
    held = null;
    tries = 0;
    await Promise.all([...jobs.value.values()].map((job) => fetchMetrics(job, turn)));
  } catch (error) {
    if (turn === loading) refused(error);
  }
}

/** The newest jobs, and all that have not ended: a queue may be longer than what is shown of the past. */
async function everyJob() {
  const { jobs: newest, next } = await get("/api/jobs?limit=100");
  older.value = next;
  if (next === null) return newest;
  const unfinished = UNFINISHED.map((state) => pages(`/api/jobs?limit=1000&state=${state}`, "jobs"));
  return [newest, ...(await Promise.all(unfinished))].flat();
}

/** The newest metrics of a training, which are told only as they are made. */
async function fetchMetrics(job, turn) {
  const known = metrics.value.get(job.id);
  const after = metricsAfter(job, known?.step);
  if (after === null) return;
  try {
    const { metrics: found } = await get(`/api/jobs/${job.id}/metrics?after_step=${after}`);
    const heardSince = metrics.value.get(job.id) !== known;
    const newest = found.filter((one) => one.step === found.at(-1).step); // one of each SAE
    if (turn === loading && !heardSince) take(newest.map((one) => ["metric", { job: job.id, ...one }]));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // the job has gone meanwhile
  }
}

/** The browser tries again by itself, unless the studio has refused. */
function broken(stream) {
  if (stream !== source) return;
  lose(null);
  if (stream.readyState === EventSource.CLOSED) later();
}

function refused(error) {
  close();
  lose(error instanceof ApiError ? error.message : null);
  later();
}

function lose(reason) {
  loading++;
  held = null;
  const since = phase.value === "lost" ? loss.value.since : Date.now();
  batch(() => {
    loss.value = { since, reason };
    phase.value = "lost";
  });
}

/** Try again after a while; a plain request first, for a stream does not tell why it is refused. */
function later() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const turn = loading;
    try {
      await get("/api/status");
      if (turn === loading) open();
    } catch (error) {
      if (turn === loading) refused(error);
    }
  }, delayMs(tries++, Math.random()));
}

function check() {
  if (!source) return;
  const silent_ms = performance.now() - heardAt;
  if (source.readyState === EventSource.CONNECTING && silent_ms > CHECK_MS && phase.value !== "lost") lose(null);
  if (source.readyState === EventSource.OPEN && silent_ms > SILENCE_MS) open();
}
