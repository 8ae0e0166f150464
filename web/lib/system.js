// The machine's reading as the strip shows it. Pure.

import { UNKNOWN, known, share, size } from "./format.js";

/**
 * What the strip shows of a sample (or of none): a name, a value, and the used share where there is one (0 to 1).
 * @returns {{name: string, value: string, used: number | null, about: string}[]}
 */
export function readings(sample) {
  const { cpu, memory, disk } = sample ?? {};
  const gpus = sample?.gpus ?? [];
  return [
    { name: "CPU", value: share(cpu?.share), used: cpu?.share ?? null, about: cpu ? `${cpu.count} cores` : "" },
    memoryOf("RAM", memory?.total_bytes, memory?.available_bytes, "memory of the machine"),
    ...(gpus.length ? gpus : [null]).flatMap((gpu, at) => gpuOf(gpu, gpus.length > 1 ? `GPU ${at}` : "GPU")),
    heat(sample),
    diskOf(disk),
  ];
}

function gpuOf(gpu, name) {
  const about = gpu?.name ?? "no GPU was found";
  const { memory_total_bytes: total, memory_free_bytes: free } = gpu ?? {};
  return [
    { name, value: share(gpu?.share), used: gpu?.share ?? null, about },
    memoryOf(`${name} memory`, total, free, gpu?.unified ? `${about}: shares the machine's memory` : about),
  ];
}

function memoryOf(name, total, free, about) {
  if (!known(total) || !known(free)) return { name, value: UNKNOWN, used: null, about };
  return { name, value: `${gigabytes(total - free)} / ${gigabytes(total)} GB`, used: (total - free) / total, about };
}

const gigabytes = (bytes) => (bytes / 1e9).toFixed(bytes < 99.5e9 ? 1 : 0);

/** The warmest of all sensors. */
function heat(sample) {
  const gpus = (sample?.gpus ?? []).map((gpu) => [gpu.celsius, gpu.name]);
  const others = (sample?.temperatures ?? []).map((sensor) => [sensor.celsius, sensor.name]);
  const [celsius, about] = [...gpus, ...others].filter(([c]) => known(c)).sort((a, b) => b[0] - a[0])[0] ?? [];
  return { name: "Warmest", value: known(celsius) ? `${celsius.toFixed(0)} °C` : UNKNOWN, used: null, about: about ?? "" };
}

function diskOf(disk) {
  const { total_bytes: total, free_bytes: free } = disk ?? {};
  const used = known(total) && known(free) && total > 0 ? (total - free) / total : null;
  return { name: "Disk", value: known(free) ? `${size(free)} free` : UNKNOWN, used, about: disk?.path ?? "" };
}
