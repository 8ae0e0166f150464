// The formats that an SAE is written in for others: what each is for, and whether an SAE has room in it. Pure.

export const FORMATS = [
  ["saelens", "SAELens", "what most libraries and notebooks load; also what goes to the Hub"],
  ["zip", "SAELens, as one zip file", "the same folder in one file, to send"],
  ["sparsify", "sparsify", "EleutherAI's library: SAEs that take the k largest latents"],
  ["dictionary_learning", "dictionary_learning", "the library of Marks, Karvonen and Mueller; the file is a pickle"],
  ["gemma_scope_npz", "Gemma Scope (npz)", "one array file as Google publishes them: a threshold for each latent"],
  ["neuronpedia", "Neuronpedia", "all features with their labels, as its importer reads them"],
  ["saedashboard", "SAEDashboard", "features as JSON for tools that read SAEDashboard's batches, without labels"],
];
export const FORMAT_NAMES = Object.fromEntries(FORMATS.map(([format, name]) => [format, name]));

const OF_FEATURES = new Set(["neuronpedia", "saedashboard"]);

/**
 * Why a format has no room for an SAE, as far as its cfg.json tells; null when it has. `extractions`: how many there are.
 * Nothing is said against one for as long as these are not known; what only the weights tell, the job says. The engine's
 * mistudiod/engine/formats/write_*.py have the same sentences, and tests/test_page_layouts.py holds these to them.
 */
export function lacks(format, config, extractions) {
  if (OF_FEATURES.has(format)) return extractions === 0 ? "none of its features have been extracted yet" : null;
  if (!config) return null;
  const architecture = String(config.architecture);
  const transcodes = architecture.includes("transcoder");
  const topk = architecture.includes("topk");
  const norm = config.normalize_activations ?? "none";
  switch (format) {
    case "saelens":
    case "zip":
      return transcodes && topk ? "SAELens has no transcoder that takes the k largest latents" : null;
    case "sparsify":
      if (!topk) return "sparsify has only SAEs that take the k largest latents";
      if ((config.d_out ?? config.d_in) !== config.d_in) return `sparsify rebuilds as many numbers as it reads, and this reads ${config.d_in} and rebuilds ${config.d_out}`;
      return norm === "none" ? null : `sparsify normalizes nothing, and this SAE applies ${norm} to each token`;
    case "dictionary_learning":
      if (transcodes) return "dictionary_learning has no transcoders";
      return norm === "none" ? null : `dictionary_learning normalizes nothing, and this SAE applies ${norm} to each token`;
    case "gemma_scope_npz":
      if (transcodes) return "params.npz cannot say that it is a transcoder";
      if (topk || architecture === "gated") return `params.npz holds a threshold for each latent, and a ${architecture} SAE has none`;
      return norm === "none" ? null : `Gemma Scope normalizes nothing, and this SAE applies ${norm} to each token`;
    default:
      return null;
  }
}
