import { useEffect, useRef, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { keyOf } from "../lib/edits.js";
import { stream } from "../stream.js";

/**
 * @typedef {object} Calibration how far one is: `{range}`, `{stage, share}` while it is looked for, `{failed, choices}` or
 *   `{wide}`, when a person takes a wide range instead
 */

const WAITS = { stage: "waiting" };
const STOPPED = { failed: "calibration was stopped." };

/**
 * The ranges of features that are added, by `keyOf`. What the studio does not know is found out, one feature at a time,
 * and only while no text is written: hold() lets it make room, release() lets it begin anew.
 */
export function useRanges(edits) {
  const [known, setKnown] = useState(/** @type {Record<string, Calibration>} */ ({}));
  const work = useRef({ begun: new Set(), line: [], now: null, held: 0, gone: false }).current;
  const tell = (edit, about) => !work.gone && setKnown((was) => ({ ...was, [keyOf(edit)]: about }));
  const next = async () => {
    if (work.now || work.held || work.gone || !work.line.length) return;
    const one = (work.now = { ...work.line.shift(), stop: new AbortController(), makesRoom: false });
    const about = await calibrated(one, (progress) => tell(one.edit, progress));
    work.now = null;
    if (one.makesRoom) work.line.unshift(one);
    tell(one.edit, one.makesRoom ? WAITS : about);
    next();
  };
  const again = (edit, pause = false) => {
    tell(edit, WAITS);
    work.line.push({ edit, pause });
    next();
  };
  const begin = async (edit) => {
    tell(edit, WAITS);
    try {
      const { ranges: [range] } = await get(`${pathOf(edit)}?features=${edit.feature}`);
      if (range) return tell(edit, { range });
    } catch (error) {
      return tell(edit, { failed: said(error) });
    }
    if (work.begun.has(keyOf(edit))) again(edit); // it may have been left out meanwhile
  };
  const stop = (edit) => {
    const is = (one) => keyOf(one.edit) === keyOf(edit);
    work.line = work.line.filter((one) => !is(one));
    if (work.now && is(work.now)) {
      work.now.makesRoom = false;
      work.now.stop.abort();
    } else tell(edit, STOPPED);
  };
  const wanted = edits.filter(({ op, off }) => op === "add" && !off);
  useEffect(() => {
    for (const edit of wanted) {
      if (work.begun.has(keyOf(edit))) continue;
      work.begun.add(keyOf(edit));
      begin(edit);
    }
  }, [wanted.map(keyOf).join()]);
  useEffect(() => () => {
    work.gone = true;
    work.now?.stop.abort();
  }, []);
  return {
    known,
    rangeOf: (edit) => known[keyOf(edit)]?.range ?? null,
    again,
    stop,
    /** It is left out; when it comes again, so does its calibration. */
    drop(edit) {
      stop(edit);
      work.begun.delete(keyOf(edit));
    },
    widen: (edit) => tell(edit, { wide: true }),
    hold() {
      work.held++;
      if (!work.now || work.now.stop.signal.aborted) return;
      work.now.makesRoom = true;
      work.now.stop.abort();
    },
    release() {
      work.held--;
      next();
    },
  };
}

const pathOf = ({ sae }) => `/api/saes/${encodeURIComponent(sae)}/ranges`;

/** What the studio finds out now. @returns {Promise<Calibration>} */
async function calibrated({ edit, pause, stop }, tell) {
  tell({ stage: "asking" });
  try {
    const hear = (name, { stage, done, total }) => name === "progress" && tell({ stage, share: total ? done / total : null });
    const { ranges } = await stream(pathOf(edit), { features: [edit.feature], if_busy: pause ? "pause" : "refuse" }, hear, stop.signal);
    return { range: ranges[0] };
  } catch (error) {
    return stop.signal.aborted ? STOPPED : { failed: said(error), choices: error.about?.choices ?? [] };
  }
}
