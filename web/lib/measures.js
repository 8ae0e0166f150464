// What is measured of the SAEs of a training on its way. Pure.

import { known } from "./format.js";

/** What is known once a metric of one SAE, or of the job as a whole (sae null), has come: `{step, of: sae → values}`. */
export function measuresAfter(before, { step, sae = null, values }) {
  const of = new Map(before?.of ?? []);
  of.set(sae, { ...of.get(sae), ...values });
  return { step, of };
}

/** Of how many SAEs something is known. */
export const measured = (measures) => [...(measures?.of.keys() ?? [])].filter((sae) => sae !== null).length;

/** The mean of a value over the SAEs that have it; null when none has. */
export function mean(measures, name) {
  const found = [...(measures?.of.values() ?? [])].map((values) => values[name]).filter(known);
  return found.length ? found.reduce((sum, x) => sum + x, 0) / found.length : null;
}
