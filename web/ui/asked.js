import { useEffect, useState } from "preact/hooks";
import { get, post, said } from "../api.js";
import { connections } from "../state.js";

/** @typedef {{found?: any, failed?: string, fields?: Record<string, string>, busy?: boolean}} Answer as far as there is one */

const TYPED_MS = 300; // after the last key
const NOTHING = {};

/**
 * What the studio answers to a POST of `body` to `path`, asked anew a moment after either has changed, and when the
 * studio is there again: `{found}` or `{failed, fields}`, a sentence, and those at fields; neither before the first
 * answer, and for as long as `body` is null. `busy`: the answer is yet to come, and what is there is of what was asked before.
 * @returns {Answer}
 */
export function useAsked(path, body) {
  const [answer, setAnswer] = useState(/** @type {Answer & {path?: string, of?: string}} */ ({}));
  const connection = connections.value;
  const asked = body && JSON.stringify(body);
  useEffect(() => {
    if (!asked) return setAnswer({});
    let wanted = true;
    const tell = (one) => wanted && setAnswer({ ...one, path, of: asked });
    const ask = () => post(path, JSON.parse(asked)).then((found) => tell({ found }), (error) => tell({ failed: said(error), fields: error.fields ?? {} }));
    const timer = setTimeout(ask, TYPED_MS);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [path, asked, connection]);
  const isOfIt = answer.path === path;
  return { ...(isOfIt ? answer : NOTHING), busy: Boolean(asked) && !(isOfIt && answer.of === asked) };
}

/**
 * What a GET of `path` answers: `{found, failed, again}`; it is asked anew when `path` or `state` changes, and by again().
 * @param {string | null} path @param {unknown} [state]
 */
export function useLoaded(path, state) {
  const [answer, setAnswer] = useState(/** @type {Answer & {path: string | null}} */ ({ path: null }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return;
    let wanted = true;
    get(path).then((found) => wanted && setAnswer({ path, found }), (error) => wanted && setAnswer({ path, failed: said(error) }));
    return () => (wanted = false);
  }, [path, state, turn]);
  const isOfIt = answer.path === path;
  return { found: isOfIt ? answer.found : undefined, failed: isOfIt ? answer.failed : undefined, again: () => setTurn((n) => n + 1) };
}
