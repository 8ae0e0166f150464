// Whether weights fit into the memory that is free now. Pure.

import { known } from "./format.js";

const ROOM = 0.9; // of what is free: work with the weights needs some too

/**
 * The memories of a machine by its newest reading: `{name, free, total}` each, the GPUs first; RAM alone where a GPU
 * shares it, or none is there.
 * @returns {{name: string, free: number, total: number}[]}
 */
export function memories(sample) {
  const gpus = (sample?.gpus ?? []).filter((gpu) => !gpu.unified && known(gpu.memory_free_bytes));
  const name = (at) => (gpus.length > 1 ? `GPU ${at}` : "GPU");
  const found = gpus.map((gpu, at) => ({ name: name(at), free: gpu.memory_free_bytes, total: gpu.memory_total_bytes }));
  const { available_bytes: free, total_bytes: total } = sample?.memory ?? {};
  return known(free) ? [...found, { name: "RAM", free, total }] : found;
}

/** "fits", "only just", "does not fit now" (it would if all were free) or "does not fit". */
export function verdict(bytes, { free, total }) {
  if (bytes <= ROOM * free) return "fits";
  if (bytes <= free) return "only just";
  return known(total) && bytes <= ROOM * total ? "does not fit now" : "does not fit";
}
