// The whole way on what miStudio brings, as `mistudio demo` goes it: a job for each stage. Pure.

/** @type {[string | null, Record<string, any>][]} */
const STAGES = [
  ["model", { kind: "add_model", source: "builtin:pico", name: "pico" }],
  ["dataset", { kind: "add_dataset", source: "builtin:python", name: "python" }],
  ["tokenization", { kind: "tokenize", dataset: "python", model: "pico", name: "python-pico", context: 128 }],
  ["sae", { kind: "train", tokenization: "python-pico", name: "pico-demo", hook: "blocks.3.hook_resid_post", width: 2048, k: 32,
    tokens: 1_200_000, batch_tokens: 2048 }],
  [null, { kind: "extract", sae: "pico-demo", tokens: 300_000 }],
  [null, { kind: "label", sae: "pico-demo", endpoint: "tokens" }],
  [null, { kind: "score", sae: "pico-demo", methods: ["tokens"] }],
];

/** The specs that are left to do. `has`: (noun, name) → whether that is there. */
export const demo = (has) => STAGES.filter(([noun, spec]) => !noun || !has(noun, spec.name)).map(([, spec]) => spec);
