// The spec of a training as a form holds it, and as a line for the terminal. Pure.

const BY_L1 = new Set(["standard", "gated"]);
export const TRANSCODERS = new Set(["transcoder", "topk_transcoder"]);
const WORDS = new Set(["hook", "architecture"]); // lists of words
const SWITCHES = new Set(["skip", "outliers"]);
const TEXTS = new Set(["name", "tokenization", "hook_out", "precision", "keep_activations", "extends"]);
const NEVER = new Set(["kind", "preset"]);

/**
 * "8,192, 16,384" → [8192, 16384]: a comma with three digits behind it, and no more, stands within a number; other
 * commas, and spaces, between numbers. What is no number stays as it is, for the studio to say what is wrong with it.
 */
export function numbersOf(text) {
  const parts = String(text).replace(/(?<![\d.])(\d{1,3})((?:,\d{3})+)(?![\d])/g, (all) => all.replaceAll(",", "")).split(/[\s,;]+/);
  return parts.filter(Boolean).map((part) => (Number.isFinite(Number(part)) ? Number(part) : part));
}

const GROUPED = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 12 });

/** [8192, 16384] → "8,192, 16,384" */
export const numbersText = (numbers) => [numbers].flat().map((one) => (typeof one === "number" ? GROUPED.format(one) : one)).join(", ");

const lone = (list) => (list.length === 1 ? list[0] : list);

/** Whether a field means something beside the others; the studio refuses some of those that do not. */
export function heeded(name, { architecture = [] }) {
  if (name === "l1") return architecture.some((one) => BY_L1.has(one));
  if (name === "k") return !architecture.length || architecture.some((one) => !BY_L1.has(one));
  if (name === "hook_out" || name === "skip") return architecture.some((one) => TRANSCODERS.has(one));
  if (name === "tanh") return architecture.includes("jumprelu");
  return true;
}

// What the studio lets be another when a training goes on: how long it takes, and with what means.
const MAY_DIFFER = new Set(["tokens", "steps", "checkpoint_every_s", "keep_checkpoints", "evaluate_every", "saes_at_once", "whole_model", "forward_tokens", "micro_tokens", "threads"]);

/** Whether a person can choose a field: it is heeded, and not settled by an SAE that is trained further. */
export const isOpen = (name, values) => heeded(name, values) && (!values.extends || MAY_DIFFER.has(name));

/** Why a training cannot be asked for as it stands in the form; "" when it can. `seen`: tokens that the SAE it goes on with was trained on. */
export function lacking(values, seen) {
  if (!values.hook.length) return "Choose a hook first.";
  if (!values.name) return "Say what to call it first.";
  const [tokens] = numbersOf(values.tokens ?? "");
  if (values.extends && !values.steps && tokens <= seen) return `${values.extends} was trained on ${numbersText(seen)} tokens already: ask for more than that in all.`;
  return "";
}

/** What stands in a form for a spec: texts for numbers, lists for hooks and architectures, "" for what is left open. */
export function valuesOf(spec) {
  const shown = (name, value) => {
    if (WORDS.has(name)) return [value ?? []].flat();
    if (value === null || value === undefined) return "";
    if (SWITCHES.has(name)) return value;
    if (name === "whole_model") return value ? "yes" : "no";
    return TEXTS.has(name) ? value : numbersText(value);
  };
  return Object.fromEntries(Object.entries(spec).filter(([name]) => !NEVER.has(name)).map(([name, value]) => [name, shown(name, value)]));
}

/** The other way: what is sent. What is left open, or not heeded, is left out. */
export function specOf(values) {
  const spec = { kind: "train" };
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value?.length === 0 || !heeded(name, values)) continue;
    if (WORDS.has(name)) spec[name] = lone(value);
    else if (SWITCHES.has(name) || TEXTS.has(name)) spec[name] = value;
    else if (name === "whole_model") spec[name] = value === "yes";
    else spec[name] = lone(numbersOf(value));
  }
  return spec;
}

/** What a schema says that stands in a field when nobody says anything. */
export const defaultsOf = (fields) => valuesOf(Object.fromEntries(Object.entries(fields).map(([name, { default: value }]) => [name, value])));

/** The preset whose values all stand there; null when there is none. */
export function presetOf(values, presets) {
  const spec = specOf(values);
  return Object.keys(presets).find((name) => Object.entries(presets[name]).every(([field, value]) => spec[field] === value)) ?? null;
}

/** The line for the terminal that asks for the same. `fields`: the schema, whose defaults need not be said. */
export function commandOf(spec, fields) {
  const same = (name, value) => JSON.stringify(lone([value].flat())) === JSON.stringify(lone([fields[name]?.default ?? null].flat()));
  const given = Object.entries(spec).filter(([name, value]) => !NEVER.has(name) && value !== null && !same(name, value));
  const option = (name) => name.replaceAll("_", "-");
  const said = ([name, value]) => {
    if (typeof value === "boolean") return [`--${value ? "" : "no-"}${option(name)}`];
    const times = name === "hook" ? [value].flat() : [[value].flat().join(",")]; // several hooks are said one by one
    return times.map((one) => `--${option(name)} ${quoted(one)}`);
  };
  return ["mistudio train start", ...given.flatMap(said)].join(" ");
}

/** As a shell takes a word. */
export const quoted = (text) => (/^[\w.,:@%+/=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** The spec that goes on with an SAE, up to `tokens` in all; what was chosen then stays chosen. Its `recipe` as the API gives it. */
export function extended({ name, spec, resolved = {} }, tokens) {
  const chosen = ["precision", "forward_tokens", "buffer_tokens", "micro_tokens", "threads"].filter(
    (one) => [null, undefined, "auto"].includes(spec[one]) && ![null, undefined, "auto"].includes(resolved[one]));
  return { ...spec, ...Object.fromEntries(chosen.map((one) => [one, resolved[one]])), extends: name, tokens, steps: null };
}
