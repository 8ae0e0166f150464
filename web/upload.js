// Files of this browser, sent to the studio in parts. What has come stays there for 7 days: the same files go on from it.

import { ApiError, get, post, refused, remove } from "./api.js";
import { UNFINISHED } from "./lib/jobs.js";
import { Sha256 } from "./lib/sha256.js";
import { jobs } from "./state.js";

const PART_BYTES = 4 << 20;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000]; // between tries of a part that brought nothing further
const MAY_PASS = new Set([409, 503]); // another offset, or a studio out of breath
const [TRIES, AGAIN_MS] = [5, 500]; // of taking an upload back
const leaving = new Set(); // ids of uploads that were taken back: the same files begin anew

/**
 * Send files under a name; `told` hears `{stage, done, total}` in bytes, and `{upload}` as soon as there is one.
 * @param {string} name @param {File[]} files @param {(news: object) => void} told @param {AbortSignal} signal
 * @returns {Promise<string>} the upload's id. Throws as get() does, and AbortError.
 */
export async function send(name, files, told, signal) {
  const total = files.reduce((sum, file) => sum + file.size, 0);
  let done = 0;
  const announced = [];
  for (const file of files) {
    announced.push({ path: file.name, bytes: file.size, sha256: await digest(file, (n) => told({ stage: "reading", done: (done += n), total }), signal) });
  }
  const left = await begun(name, total, announced);
  signal.throwIfAborted();
  const upload = left ?? (await post("/api/uploads", { name, files: announced }));
  told({ upload: upload.id });
  if (signal.aborted) takeBack(upload.id); // that was said before the studio had answered that there is one
  signal.throwIfAborted();
  const here = new Map(upload.files.map((file) => [file.path, file.received_bytes]));
  for (const file of files) {
    const others = [...here].reduce((sum, [path, bytes]) => (path === file.name ? sum : sum + bytes), 0);
    await sendOne(upload.id, file, here.get(file.name), (at, stage = "sending") => {
      here.set(file.name, at);
      told({ stage, done: others + at, total });
    }, signal);
  }
  signal.throwIfAborted();
  return upload.id;
}

async function digest(file, told, signal) {
  const found = new Sha256();
  for (let at = 0; at < file.size; at += PART_BYTES) {
    const bytes = new Uint8Array(await file.slice(at, at + PART_BYTES).arrayBuffer());
    signal.throwIfAborted();
    found.add(bytes);
    told(bytes.length);
  }
  return found.hex();
}

/** Take an upload back; while the studio still reads the part that was on its way it refuses. What stays ends in 7 days. */
export async function takeBack(id) {
  leaving.add(id);
  for (let tries = TRIES; tries > 0; tries--) {
    const error = await remove(`/api/uploads/${id}`).then(() => null, (error) => error);
    if (error?.status !== 409) return;
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** An upload of the same files that an earlier try has left, and that no job reads: with its end it goes. */
async function begun(name, total, announced) {
  const { uploads } = await get("/api/uploads");
  const taken = new Set([...jobs.peek().values()].filter(({ state }) => UNFINISHED.includes(state)).map(({ spec }) => spec.source));
  const free = ({ id }) => !leaving.has(id) && !taken.has(`upload:${id}`);
  for (const brief of uploads.filter((one) => one.name === name && one.bytes === total && free(one))) {
    const upload = await get(`/api/uploads/${brief.id}`);
    const same = (file) => upload.files.some((one) => one.path === file.path && one.sha256 === file.sha256);
    if (upload.files.length === announced.length && announced.every(same)) return upload;
  }
  return null;
}

async function sendOne(id, file, from, told, signal) {
  let [at, failures] = [from, 0];
  told(at);
  while (at < file.size) {
    const before = at;
    try {
      at = standsAt(await put(id, file, at, signal), file);
    } catch (error) {
      signal.throwIfAborted();
      told(at, "waiting");
      if (failures === PAUSES_MS.length || (error instanceof ApiError && !MAY_PASS.has(error.status))) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSES_MS[failures]));
      signal.throwIfAborted();
      at = await get(`/api/uploads/${id}`).then((upload) => standsAt(upload, file), () => at);
    }
    failures = at > before ? 0 : failures + 1;
    told(at);
  }
}

const standsAt = (upload, file) => upload.files.find((one) => one.path === file.name).received_bytes;

async function put(id, file, at, signal) {
  const path = `/api/uploads/${id}?path=${encodeURIComponent(file.name)}&offset=${at}`;
  const headers = { "Content-Type": "application/octet-stream" };
  const response = await fetch(path, { method: "PUT", body: file.slice(at, at + PART_BYTES), headers, cache: "no-store", signal });
  const text = await response.text();
  if (!response.ok) throw refused(response.status, text);
  return JSON.parse(text);
}
