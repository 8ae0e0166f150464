// The studio's HTTP API: JSON in, JSON out.

/** A request that the studio refuses: its status, and its sentence. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** GET as JSON. Throws ApiError; TypeError when no studio answers. */
export const get = (path) => ask("GET", path);

/** POST without a body. Throws as get() does. */
export const post = (path) => ask("POST", path);

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

async function ask(method, path) {
  const response = await fetch(path, { method, cache: "no-store" });
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  throw new ApiError(response.status, sentence(text) ?? `the studio answered ${response.status}`);
}

/** The sentence in the API's error; what stands between us and the studio may answer something else. */
function sentence(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return null;
  }
}
