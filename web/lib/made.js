// Where what a job made can be seen. Pure.

/**
 * What a job that is done has made or changed: `[{words, at, noun, name}, …]`, `at` as place() takes it, `noun` and
 * `name` of what has to be there still.
 */
export function madeBy(job) {
  if (!["done", "partial"].includes(job.state)) return [];
  const { name, sae } = job.spec;
  switch (job.kind) {
    case "add_dataset":
      return [{ words: `Dataset ${name}`, at: ["datasets", [name]], noun: "dataset", name }];
    case "tokenize":
      return [{ words: `Tokenization ${name}`, at: ["datasets", [job.spec.dataset]], noun: "tokenization", name }];
    case "add_model":
      return [{ words: `Model ${name}`, at: ["models", [name]], noun: "model", name }];
    case "add_sae":
    case "train":
      return (job.makes?.names ?? [name]).map((one) => ({ words: `SAE ${one}`, at: ["saes", [one]], noun: "sae", name: one }));
    case "compare":
      return [{ words: "What it found", at: ["saes", ["compare", job.id]], noun: null, name: null }];
    case "extract":
    case "label":
    case "score":
      return [{ words: `Features of ${sae}`, at: ["features", [sae]], noun: "sae", name: sae }];
    case "steer":
      return [{ words: `Steering with ${sae}`, at: ["steering", [sae]], noun: "sae", name: sae }];
    default:
      return sae ? [{ words: `SAE ${sae}`, at: ["saes", [sae]], noun: "sae", name: sae }] : [];
  }
}
