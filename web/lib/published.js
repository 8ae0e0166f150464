// SAEs that somebody has published, as the studio's preview lists them: found, put in groups, called. Pure.

import { count, known } from "./format.js";
import { freeName, named } from "./names.js";

/** Those whose path, hook, layer, width or L0 has every word that somebody typed: "layer 12", "width_16k", "l0 82". */
export function matching(saes, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return saes.filter((one) => {
    const said = [one.path, one.hook, one.format, `layer ${one.layer}`, `width ${one.width} ${count(one.width)}`, `l0 ${one.l0}`].join(" ").toLowerCase();
    return words.every((word) => said.includes(word));
  });
}

/** In the order in which they come, those of one layer and hook together: `[{key, title, saes}]`. */
export function grouped(saes) {
  const groups = new Map();
  for (const one of saes) {
    const layer = one.layer === null ? "Layer not said" : `Layer ${one.layer}`;
    const key = `${layer} ${one.hook ?? ""}`;
    if (!groups.has(key)) groups.set(key, { key, layer, hook: one.hook, saes: [] });
    groups.get(key).saes.push(one);
  }
  return [...groups.values()];
}

/** "16,384 wide" of a group, "16,384 to 65,536 wide" of one with several; the same of L0. */
export function spans(saes) {
  const span = (values, one) => {
    const all = values.filter(known);
    if (!all.length) return null;
    const [least, most] = [Math.min(...all), Math.max(...all)];
    return least === most ? one(least) : `${one(least)} to ${one(most)}`;
  };
  const [width, l0] = [span(saes.map(({ width }) => width), count), span(saes.map(({ l0 }) => l0), (x) => String(Math.round(x)))];
  return [width && `width ${width}`, l0 && `L0 ${l0}`].filter(Boolean).join(" · ");
}

const ENDINGS = /\.(npz|safetensors|pt|pth)$/;
const LONGEST = 64;

/** "google/gemma-scope-2b-pt-res", "layer_12/width_16k" → "gemma-scope-2b-pt-res-layer_12-width_16k"; of what is too long its end. */
export function publishedName(place, path, taken) {
  const parts = [place.replace(/\/+$/, "").split("/").at(-1), ...path.split("/")].map((part) => part.replace(ENDINGS, ""));
  const name = parts.filter((part) => part && part !== "." && part !== "params" && part !== "ae").join("-");
  return freeName(named(name.slice(-LONGEST), "sae"), taken);
}

// Whose models go by a name without an owner, by how the name begins.
const OWNERS = [
  ["gpt2", "openai-community"],
  ["distilgpt2", "distilbert"],
  ["pythia", "EleutherAI"],
  ["gemma", "google"],
  ["meta-llama", "meta-llama"],
  ["llama", "meta-llama"],
  ["qwen", "Qwen"],
  ["mistral", "mistralai"],
  ["deepseek", "deepseek-ai"],
];
const RENAMED = {
  "gpt2-small": "openai-community/gpt2",
  "mistral-7b": "mistralai/Mistral-7B-v0.1",
  "meta-llama/meta-llama-3.1-8b": "meta-llama/Llama-3.1-8B",
};

/** A model's id on the Hub: "gpt2-small" → "openai-community/gpt2"; the name as it is when nobody's is known. */
export function hubModel(name) {
  const renamed = RENAMED[name.toLowerCase()];
  if (renamed) return renamed;
  const owner = !name.includes("/") && OWNERS.find(([start]) => name.toLowerCase().startsWith(start));
  return owner ? `${owner[1]}/${name}` : name;
}

const isHubId = (source) => /^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(source);

/** The models here that an SAE may read, by what it says of its model; as the studio itself looks for them. */
export function modelsFor(said, models) {
  const id = hubModel(said).toLowerCase();
  const same = models.filter((model) => hubModel(model.source ?? "").toLowerCase() === id);
  if (same.length) return same;
  const last = id.split("/").at(-1);
  return models.filter(({ name, source = "" }) =>
    (!isHubId(source) && [last, said.toLowerCase()].includes(name.toLowerCase())) || (source.startsWith("/") && source.split("/").at(-1).toLowerCase() === last));
}
