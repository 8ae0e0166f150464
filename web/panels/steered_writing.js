import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, said } from "../api.js";
import { stream } from "../stream.js";

/**
 * @typedef {object} Run of a text that is, or was, written
 * @property {boolean} [busy]
 * @property {{stage: string, done: number, total: number | null, unit: string, eta_s: number | null}} [progress] before the first token
 * @property {number} [tokens] that each text has by now
 * @property {string[]} texts of each sample the baseline, then the variants; as far as they have come
 * @property {number} variants steered texts beside each baseline
 * @property {any} [body] that was sent
 * @property {any} [result] as the API gives it, whole
 * @property {string} [failed] why there is no result
 * @property {Record<string, string>} [fields] what is wrong with which field
 * @property {{code: string, choices?: string[], job?: object}} [about] what else the studio says of it
 * @property {boolean} [stopped] by the person
 */

/**
 * Writes as the session does it; `done(result, body)` is told of what is whole. One text at a time: a new one ends the
 * last. Calibration makes room meanwhile (`ranges`): a person waits for the text.
 */
export function useWriting(done, ranges) {
  const [run, setRun] = useState(/** @type {Run} */ ({ texts: [], variants: 1 }));
  const stopping = useRef(null);
  useEffect(() => () => stopping.current?.abort(), []);
  const write = async (body, pause = false) => {
    stopping.current?.abort();
    const stop = (stopping.current = new AbortController());
    const variants = body.sweep?.length || 1;
    const growing = { busy: true, texts: Array((1 + variants) * (body.samples || 1)).fill(""), variants, body };
    let drawn = 0;
    const draw = () => {
      drawn = 0;
      if (stop === stopping.current && !stop.signal.aborted) setRun({ ...growing, texts: [...growing.texts] });
    };
    const hear = (name, data) => {
      if (name === "progress") growing.progress = data;
      if (name === "text") {
        growing.progress = undefined;
        growing.tokens = data.tokens;
        for (const { row, text } of data.texts) growing.texts[row] += text;
      }
      drawn ||= requestAnimationFrame(draw);
    };
    const end = (about) => {
      cancelAnimationFrame(drawn);
      if (stop === stopping.current) setRun({ texts: growing.texts, variants, body, ...about });
    };
    draw();
    ranges.hold();
    try {
      const result = await stream("/api/steer", { ...body, if_busy: pause ? "pause" : "refuse" }, hear, stop.signal);
      end({ result });
      done(result, body);
    } catch (error) {
      if (error.name === "AbortError") end({ stopped: true });
      else end({ failed: said(error), fields: error.fields ?? {}, about: error instanceof ApiError ? error.about : null });
    } finally {
      ranges.release();
    }
  };
  return { run, write, stop: () => stopping.current?.abort(), show: (result) => setRun(shown(result)), clear: () => setRun({ texts: [], variants: 1 }) };
}

/** A run that was kept, as one that has just been written. */
function shown(result) {
  const variants = result.steered.length / result.baselines.length;
  return { texts: [], variants, result };
}

/** What is done meanwhile, in words: "load pico 40%", "12 tokens". */
export function stageWords({ busy, progress, tokens }) {
  if (!busy) return "";
  if (progress) return `${progress.stage}${progress.total && progress.total !== 1 ? ` ${Math.round((100 * progress.done) / progress.total)}%` : ""}`;
  return tokens ? `${tokens} tokens` : "asking";
}
