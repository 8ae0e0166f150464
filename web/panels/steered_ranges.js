import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../api.js";
import { keyOf } from "../lib/edits.js";
import { stream } from "../stream.js";
import { said } from "../ui/form.js";

/**
 * @typedef {object} Calibration how far one is: `{range}`, `{stage, share}` while it is looked for, `{failed, choices}` or
 *   `{wide}`, when a person takes a wide range instead
 */

/**
 * The ranges of features that are added, by `keyOf`. What the studio does not know is found out, one feature at a time;
 * `settle(edit, range)` is told of each that has one.
 */
export function useRanges(edits, settle) {
  const [known, setKnown] = useState({});
  const begun = useRef(new Set());
  const line = useRef(Promise.resolve());
  const stops = useRef(new Map());
  const tell = (key, about) => setKnown((was) => ({ ...was, [key]: about }));
  const settled = useRef(settle);
  settled.current = settle;
  const begin = (edit, pause = false) => {
    const stop = new AbortController();
    stops.current.set(keyOf(edit), stop);
    tell(keyOf(edit), { stage: "waiting" });
    line.current = line.current.then(async () => {
      const about = await found(edit, pause, (progress) => tell(keyOf(edit), progress), stop.signal);
      tell(keyOf(edit), about);
      if (about.range) settled.current(edit, about.range);
    });
  };
  const wanted = edits.filter(({ op, off }) => op === "add" && !off);
  useEffect(() => {
    for (const edit of wanted) {
      if (begun.current.has(keyOf(edit))) continue;
      begun.current.add(keyOf(edit));
      begin(edit);
    }
  }, [wanted.map(keyOf).join()]);
  useEffect(() => () => stops.current.forEach((stop) => stop.abort()), []);
  return {
    known,
    rangeOf: (edit) => known[keyOf(edit)]?.range ?? null,
    again: begin,
    stop: (edit) => stops.current.get(keyOf(edit))?.abort(),
    widen: (edit) => tell(keyOf(edit), { wide: true }),
  };
}

/** What the studio knows, or finds out now. @returns {Promise<Calibration>} */
async function found({ sae, feature }, pause, tell, signal) {
  const path = `/api/saes/${encodeURIComponent(sae)}/ranges`;
  try {
    signal.throwIfAborted();
    const { ranges: [range] } = await get(`${path}?features=${feature}`);
    if (range) return { range };
    tell({ stage: "asking" });
    const hear = (name, { stage, done, total }) => name === "progress" && tell({ stage, share: total ? done / total : null });
    const { ranges } = await stream(path, { features: [feature], if_busy: pause ? "pause" : "refuse" }, hear, signal);
    return { range: ranges[0] };
  } catch (error) {
    if (error.name === "AbortError") return { failed: "calibration was stopped." };
    return { failed: said(error), choices: error.about?.choices ?? [] };
  }
}
