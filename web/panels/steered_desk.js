import { useEffect, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { asked, editsFrom, editsOf, written } from "../lib/edits.js";
import { parse, place } from "../lib/route.js";
import { route } from "../route.js";

const KEPT_MS = 250; // after the last change it is in the address
const ASIDE = 3; // strengths that stand beside each other; more are a table
/** Names as `Steer` has them, with what holds when nobody says. */
export const DEFAULTS = { max_tokens: 60, temperature: 0.7, top_p: 1, top_k: 0, repetition_penalty: 1, seed: 0, samples: 1, times: "", precision: "" };

/**
 * All that a person has chosen: edits, prompt, sampling, view; the address keeps it, so that reload and links work.
 * With `run` in the query a kept run is fetched, and what the address does not say is taken from it.
 */
export function useDesk(sae, query) {
  const [edits, setEdits] = useState(() => editsOf(query.features, sae.name));
  const [prompt, setPrompt] = useState(query.prompt ?? "");
  const [sampling, setSampling] = useState(() => samplingOf(query));
  const [view, setView] = useState(query.view ?? "text");
  const [opened, setOpened] = useState(/** @type {{busy?: boolean, run?: any, failed?: string}} */ (query.run ? { busy: true } : {})); // the run of the address
  useEffect(() => {
    if (!query.run) return;
    get(`/api/steerings/${encodeURIComponent(query.run)}`).then((run) => {
      const { spec } = run;
      if (query.features === undefined) setEdits(editsFrom(spec.steering, run.sae));
      if (query.prompt === undefined && spec.prompt) setPrompt(spec.prompt);
      const isSweep = spec.sweep?.length > ASIDE;
      if (query.features === undefined) setSampling({ ...samplingFrom(spec), ...(isSweep ? { times: "" } : {}) });
      if (query.view === undefined) setView(spec.messages ? "chat" : isSweep ? "sweep" : "text");
      setOpened({ run });
    }, (error) => setOpened({ failed: said(error) }));
  }, []);
  useEffect(() => {
    if (opened.busy) return undefined;
    const timer = setTimeout(() => keep(sae.name, {
      features: written(edits, sae.name), prompt, view: view === "text" ? null : view, ...differing(sampling),
    }), KEPT_MS);
    return () => clearTimeout(timer);
  }, [edits, prompt, sampling, view, opened.busy]);
  const change = (of, fields) => setEdits((was) => was.map((one) => (one.sae === of.sae && one.feature === of.feature ? { ...one, ...fields } : one)));
  return {
    sae, edits, setEdits, change, prompt, setPrompt, sampling, view, setView, opened,
    sample: (fields) => setSampling((was) => ({ ...was, ...fields })),
    keep: (fields) => keep(sae.name, fields),
    steering: asked(edits),
    ready: asked(edits).length > 0,
    /** What a text is written with stays, whatever calibration finds afterwards. */
    settle: () => setEdits((was) => was.map((one) => (one.off || one.strength !== null ? one : { ...one, strength: 1 }))),
  };
}

/** What is sent besides prompt and steering; what nobody has touched is as the studio has it. */
export function sent({ sae, sampling }) {
  const { times, precision, ...rest } = sampling;
  return { sae: sae.name, ...rest, ...(precision ? { precision } : {}) };
}

/** "0.5, 1, 2" → the numbers, or the words that are none, for the studio to refuse; null when there are none. */
export function numbers(text) {
  const found = String(text).split(",").map((one) => one.trim().replace("−", "-")).filter(Boolean);
  return found.length ? found.map((one) => (Number.isFinite(Number(one)) ? Number(one) : one)) : null;
}

const valueOf = (name, text) => (typeof DEFAULTS[name] === "number" && text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

const samplingOf = (query) => Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, query[name] === undefined ? value : valueOf(name, query[name])]));

const samplingFrom = (spec) => ({ ...samplingOf(Object.fromEntries(Object.entries(spec).filter(([, value]) => value !== null))), times: spec.sweep?.join(", ") ?? "" });

const differing = (sampling) => Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, sampling[name] === value ? null : sampling[name]]));

/** Into the address, without a step for the browser's back; with the SAE's name, also where it was left away. */
function keep(sae, fields) {
  const at = parse(location.hash);
  if (at.panel !== "steering" || (at.open[0] ?? sae) !== sae) return; // somebody has just gone elsewhere
  history.replaceState(null, "", place("steering", [sae], { ...at.query, ...fields }));
  route.value = parse(location.hash);
}
