// What something is called when nobody says: a name that the studio takes, and that is free. Pure.

const LONGEST = 64;

/** A text as a name: letters, digits, ".", "_" and "-", a letter or digit first, no number alone. */
export function named(text, fallback) {
  const name = text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/\.{2,}/g, ".").replace(/^[^A-Za-z0-9]+|[-._]+$/g, "").slice(0, LONGEST);
  return !name || /^\d+$/.test(name) ? [fallback, name].filter(Boolean).join("-") : name;
}

const last = (source) => source.replace(/\/+$/, "").split(/[/:]/).at(-1);

/** "roneneldan/TinyStories" → "TinyStories", "/data/stories.jsonl.gz" → "stories" */
export const datasetName = (source) =>
  named(last(source).replace(/(\.(txt|md|py|jsonl?|csv|parquet|arrow))?(\.(gz|zst))?$/i, ""), "dataset");

/** "EleutherAI/pythia-70m" → "pythia-70m", "builtin:pico" → "pico" */
export const modelName = (source) => named(last(source), "model");

export const tokenizationName = (dataset, model) => named(`${dataset}-${model}`, "tokens");

/** "blocks.3.hook_resid_post" of pico → "pico-L3-resid_post" */
export function saeName(model, hook) {
  const [, layer, point] = /^blocks\.(\d+)\.(?:hook_)?(.+)$/.exec(hook) ?? [];
  return named(layer === undefined ? `${model}-sae` : `${model}-L${layer}-${point.replace(/\.hook_/g, ".")}`, "sae");
}

/** The name, or with the first number behind it that is not taken. */
export function freeName(name, taken) {
  if (!name || !taken.has(name)) return name;
  for (let n = 2; ; n++) {
    const other = `${name.slice(0, LONGEST - String(n).length - 1)}-${n}`;
    if (!taken.has(other)) return other;
  }
}
