// The studio's HTTP API: JSON in, JSON out.

/** A request that the studio refuses: its status, its sentence, what is wrong with which field, and all that it says. */
export class ApiError extends Error {
  constructor(status, message, fields = {}, about = {}) {
    super(message);
    this.status = status;
    this.fields = fields;
    this.about = about;
  }
}

/** GET as JSON; `signal` gives it up. Throws ApiError; TypeError when no studio answers. */
export const get = (path, signal) => ask("GET", path, undefined, signal);

/** POST, PATCH or PUT of a body, DELETE without one. They throw as get() does. */
export const post = (path, body) => ask("POST", path, body);
export const patch = (path, body) => ask("PATCH", path, body);
export const put = (path, body) => ask("PUT", path, body);
export const remove = (path) => ask("DELETE", path);

/** Queue a job: its spec → the job. Throws as get() does; the fields that are at fault are those of the spec. */
export const submit = (spec) => post("/api/jobs", { spec });

/** The whole list `noun` at `path` (which has a query), page after page. Throws as get() does. */
export async function pages(path, noun) {
  let list = [];
  let cursor = null;
  do {
    const answer = await get(cursor === null ? path : `${path}&cursor=${encodeURIComponent(cursor)}`);
    list = list.concat(answer[noun]);
    cursor = answer.next;
  } while (cursor !== null);
  return list;
}

async function ask(method, path, body, signal) {
  const sent = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { method, cache: "no-store", signal, ...sent });
  const text = await response.text();
  if (response.ok) return text ? JSON.parse(text) : null;
  throw refused(response.status, text);
}

/** What is said of a request that did not go through. */
export const said = (error) =>
  error instanceof ApiError ? error.message : "the studio does not answer; try again when it is back";

/** The error that an answer's text tells of; what stands between us and the studio may answer something else. */
export function refused(status, text) {
  if (status === 401) location.replace(`/login${location.hash}`); // and back to where this is
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // no JSON: the status says all there is
  }
  return new ApiError(status, error.message ?? `the studio answered ${status}`, error.fields ?? {}, error);
}
