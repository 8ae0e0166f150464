// The machine over the last ten minutes, as charts, and what of it nobody measures. Pure.

import { known, share, size } from "./format.js";

const MINUTES = 10;
const degrees = (value) => `${value.toFixed(0)} °C`;
const watts = (value) => `${value.toFixed(0)} W`;

/** The samples once another has come: no older than ten minutes before it, and none twice. */
export function withSample(samples, one) {
  if (!one || samples.at(-1)?.at >= one.at) return samples;
  const first = Date.parse(one.at) - MINUTES * 60_000;
  return [...samples.filter(({ at }) => Date.parse(at) >= first), one];
}

/** -2.5 minutes → "−2 min 30 s", 0 → "now" */
export function before(minutes) {
  const seconds = Math.round(-60 * minutes);
  if (seconds <= 0) return "now";
  const [whole, rest] = [Math.floor(seconds / 60), seconds % 60];
  return `−${[whole && `${whole} min`, rest && `${rest} s`].filter(Boolean).join(" ")}`;
}

/**
 * What is drawn of samples, the oldest first: of each chart its title, its lines, the words for a value and the range of
 * its axis. A line that has no value is not drawn, nor a chart that has no line.
 * @returns {{steps: number[], charts: {title: string, lines: object[], words: Function, range: (number | null)[]}[]}}
 */
export function overTime(samples) {
  const newest = samples.at(-1);
  if (!newest) return { steps: [], charts: [] };
  const gpus = newest.gpus.map((_, at) => ({ of: (sample) => sample.gpus[at], name: newest.gpus.length > 1 ? `GPU ${at}` : "GPU" }));
  const lines = (of) => gpus.map((gpu) => ({ name: gpu.name, of: (sample) => of(gpu.of(sample) ?? {}) }));
  const own = gpus.filter(({ of }) => !of(newest).unified);
  const charts = [
    chart("CPU", share, [0, 1], [{ name: "all cores", of: ({ cpu }) => cpu.share }]),
    chart("RAM", size, [0, newest.memory.total_bytes], memory(newest)),
    chart("GPU", share, [0, 1], lines((gpu) => gpu.share)),
    chart("GPU memory", size, [0, most(own.map(({ of }) => of(newest).memory_total_bytes))],
      own.map((gpu) => ({ name: gpu.name, of: (sample) => used(gpu.of(sample)?.memory_total_bytes, gpu.of(sample)?.memory_free_bytes) }))),
    chart("Temperature", degrees, [null, null], [...lines((gpu) => gpu.celsius), { name: "warmest sensor", of: warmest }]),
    chart("Power", watts, [0, null], [...lines((gpu) => gpu.watts), { name: "whole board", of: ({ jetson }) => jetson?.watts }]),
  ];
  return { steps: minutes(samples), charts: charts.map((one) => drawn(one, samples)).filter(({ lines }) => lines.length) };
}

const chart = (title, words, range, lines) => ({ title, words, range, lines });

/** Minutes before the newest; the axis begins ten minutes ago, also where nothing was measured then. */
function minutes(samples) {
  const now = Date.parse(samples.at(-1).at);
  const found = samples.map(({ at }) => (Date.parse(at) - now) / 60_000);
  return isShort(found[0]) ? [-MINUTES, ...found] : found;
}

const isShort = (first) => first > -MINUTES + 0.1;

/** @param {ReturnType<typeof chart>} chart @param {any[]} samples */
function drawn({ lines, ...about }, samples) {
  const short = isShort((Date.parse(samples[0].at) - Date.parse(samples.at(-1).at)) / 60_000);
  const all = lines.map(({ name, of }) => ({ name, values: [...(short ? [null] : []), ...samples.map((sample) => finite(of(sample)))] }));
  return { ...about, lines: all.filter(({ values }) => values.some((value) => value !== null)) };
}

const finite = (value) => (known(value) ? value : null);
const used = (total, free) => (known(total) && known(free) ? total - free : null);
const most = (values) => (values.some(known) ? Math.max(...values.filter(known)) : null);
const warmest = ({ temperatures }) => most(temperatures.map(({ celsius }) => celsius));

function memory({ memory: { swap_total_bytes: swap }, jetson }) {
  return [
    { name: "in use", of: (sample) => used(sample.memory.total_bytes, sample.memory.available_bytes) },
    ...(swap ? [{ name: "swap in use", of: (sample) => used(sample.memory.swap_total_bytes, sample.memory.swap_free_bytes) }] : []),
    ...(jetson ? [{ name: "held for the GPU", of: (sample) => sample.jetson?.nvmap_bytes }] : []),
  ];
}

/** What is not drawn, and why: a sentence each. */
export function unmeasured(samples) {
  const newest = samples.at(-1);
  if (!newest) return [];
  const titles = new Set(overTime(samples).charts.map(({ title }) => title));
  const { gpus } = newest;
  return [
    !gpus.length && "No GPU here: jobs run on the processor.",
    gpus.length > 0 && !titles.has("GPU") && "How busy the GPU is cannot be read here.",
    gpus.some(({ unified }) => unified) && "The GPU shares the machine's memory.",
    !titles.has("Temperature") && "No sensor tells a temperature.",
    !titles.has("Power") && "No power is measured.",
    "Traffic of disk and network is not measured.",
  ].filter(Boolean);
}

/**
 * What a job was thought to need of memory and what it took, of ended jobs, the newest first: `{id, predicted, measured,
 * off}`, the last as a share of what was predicted.
 */
export function memoryOfEnded(jobs, few = 8) {
  const of = (job) => ({ job, predicted: job.plan?.peak_bytes, measured: job.result?.peak_bytes });
  const both = jobs.map(of).filter(({ predicted, measured }) => known(predicted) && predicted > 0 && known(measured));
  both.sort((a, b) => (b.job.ended_at ?? "").localeCompare(a.job.ended_at ?? ""));
  return both.slice(0, few).map((one) => ({ ...one, off: one.measured / one.predicted - 1 }));
}

/** "torch 2.13.0+cpu, numpy 2.4.6" → [["torch", "2.13.0+cpu"], ["numpy", "2.4.6"]] */
export const versions = (text) => [...text.matchAll(/([\w-]+) (\d[\w.+-]*)/g)].map(([, name, version]) => [name, version]);

/**
 * What doctor advises: the line for the terminal in it, "" without one, and the words, "" where they are no more than it.
 * @returns {{words: string, line: string}}
 */
export function remedy(text) {
  const [lead, line] = /(?:\b(?:run|set it): |^(?=sudo ))(.+?)(?=, (?:or|and) |; |$)/.exec(text) ?? ["", ""];
  return { words: lead === text ? "" : text, line };
}
