import { useEffect, useState } from "preact/hooks";
import { get, post } from "../api.js";
import { connections } from "../state.js";
import { said } from "./form.js";

const TYPED_MS = 300; // after the last key

/**
 * What the studio answers to a POST of `body` to `path`, asked anew a moment after either has changed, and when the
 * studio is there again: `{found}` or `{failed, fields}`, a sentence, and those at fields; neither before the first
 * answer, and for as long as `body` is null. `busy`: the answer is yet to come, and what is there is of what was asked before.
 * @returns {{found?: any, failed?: string, fields?: Record<string, string>, busy: boolean}}
 */
export function useAsked(path, body) {
  const [answer, setAnswer] = useState(/** @type {{of?: string, found?: any, failed?: string, fields?: Record<string, string>}} */ ({}));
  const connection = connections.value;
  const asked = body && JSON.stringify(body);
  useEffect(() => {
    if (!asked) return setAnswer({});
    let wanted = true;
    const tell = (one) => wanted && setAnswer({ ...one, of: asked });
    const ask = () => post(path, JSON.parse(asked)).then((found) => tell({ found }), (error) => tell({ failed: said(error), fields: error.fields ?? {} }));
    const timer = setTimeout(ask, TYPED_MS);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [path, asked, connection]);
  return { ...answer, busy: Boolean(asked) && answer.of !== asked };
}

/** What a GET of `path` answers: `{found, failed, again}`; it is asked anew when `path` or `state` changes, and by again(). */
export function useLoaded(path, state) {
  const [answer, setAnswer] = useState(/** @type {{path: string | null, found?: any, failed?: string}} */ ({ path: null }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return;
    let wanted = true;
    get(path).then((found) => wanted && setAnswer({ path, found }), (error) => wanted && setAnswer({ path, failed: said(error) }));
    return () => (wanted = false);
  }, [path, state, turn]);
  const isOfIt = answer.path === path;
  return { found: isOfIt ? answer.found : undefined, failed: isOfIt ? answer.failed : undefined, again: () => setTurn(turn + 1) };
}
