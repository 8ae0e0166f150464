// Asks the studio for what comes a piece at a time: a POST whose answer is a stream of events.

import { ApiError, refused } from "./api.js";
import { eventsIn } from "./lib/sse.js";

/**
 * POST `body`, and tell `hear` of each event (name, data) until the result has come, which is returned. Throws ApiError
 * as get() does, also for an error that comes after a while; when `signal` is aborted the studio stops its work on it.
 */
export async function stream(path, body, hear, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", body: JSON.stringify(body), headers, cache: "no-store", signal });
  if (!response.ok) throw refused(response.status, await response.text());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(0, "the studio has hung up without an answer");
    const found = eventsIn(rest + value);
    rest = found.rest;
    for (const { name, data } of found.events) {
      if (name === "result") return data;
      if (name === "error") throw new ApiError(0, data.error.message, data.error.fields ?? {}, data.error);
      hear(name, data);
    }
  }
}
