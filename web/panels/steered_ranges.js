import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { keyOf } from "../lib/edits.js";
import { stream } from "../stream.js";

/**
 * @typedef {object} Calibration how far one is: `{range}`, `{stage, share}` while it is looked for, `{failed, choices}` or
 *   `{wide}`, when a person takes a wide range instead
 */

const WAITS = { stage: "waiting" };
const STOPPED = { failed: "calibration was stopped." };

/** Calibrates one feature after the other, and only while no text is written; `tell(edit, calibration)` of each. */
function lineOfWork(tell) {
  let [line, now, held] = [[], null, 0];
  const is = (edit) => (one) => keyOf(one.edit) === keyOf(edit);
  const next = async () => {
    if (now || held || !line.length) return;
    const one = (now = { ...line.shift(), stop: new AbortController(), makesRoom: false });
    const about = await calibrated(one, (progress) => tell(one.edit, progress));
    now = null;
    if (one.makesRoom) line.unshift(one);
    tell(one.edit, one.makesRoom ? WAITS : about);
    next();
  };
  return {
    again(edit, pause = false) {
      tell(edit, WAITS);
      line.push({ edit, pause });
      next();
    },
    stop(edit) {
      line = line.filter((one) => !is(edit)(one));
      if (!now || !is(edit)(now)) return tell(edit, STOPPED);
      now.makesRoom = false;
      now.stop.abort();
    },
    /** Make room for a text, */
    hold() {
      held++;
      if (!now || now.stop.signal.aborted) return;
      now.makesRoom = true;
      now.stop.abort();
    },
    /** which is written; what made room begins anew. */
    release() {
      held--;
      next();
    },
    end() {
      line = [];
      now?.stop.abort();
    },
  };
}

/** The ranges of features that are added, by `keyOf`; what the studio does not know is found out. */
export function useRanges(edits) {
  const [known, setKnown] = useState(/** @type {Record<string, Calibration>} */ ({}));
  const tell = (edit, about) => setKnown((was) => ({ ...was, [keyOf(edit)]: about }));
  const begun = useRef(new Set()).current;
  const work = useMemo(() => lineOfWork(tell), []);
  const begin = async (edit) => {
    tell(edit, WAITS);
    try {
      const { ranges: [range] } = await get(`${pathOf(edit)}?features=${edit.feature}`);
      if (range) tell(edit, { range });
      else if (begun.has(keyOf(edit))) work.again(edit); // it may have been left out meanwhile
    } catch (error) {
      tell(edit, { failed: said(error) });
    }
  };
  const wanted = edits.filter(({ op, off }) => op === "add" && !off);
  useEffect(() => {
    for (const edit of wanted) {
      if (begun.has(keyOf(edit))) continue;
      begun.add(keyOf(edit));
      begin(edit);
    }
  }, [wanted.map(keyOf).join()]);
  useEffect(() => () => {
    begun.clear();
    work.end();
  }, []);
  return {
    ...work,
    known,
    rangeOf: (edit) => known[keyOf(edit)]?.range ?? null,
    /** It is left out; when it comes again, so does its calibration. */
    drop(edit) {
      work.stop(edit);
      begun.delete(keyOf(edit));
    },
    widen: (edit) => tell(edit, { wide: true }),
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
