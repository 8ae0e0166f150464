// The hooks of a model, as people look for them. Pure.

/** "blocks.3.attn.hook_z" → {hook, layer: 3, point: "attn.hook_z"}; layer null outside the blocks. */
export function partsOf(hook) {
  const [, layer, point] = /^blocks\.(\d+)\.(.+)$/.exec(hook) ?? [];
  return layer === undefined ? { hook, layer: null, point: hook } : { hook, layer: Number(layer), point };
}

/** Those that a search is for: each word is in the point, and a number alone is the layer. "3 resid", "mlp", "layer 3" */
export function hooksFound(hooks, search) {
  const words = search.toLowerCase().split(/[\s,]+/).filter((word) => word && word !== "layer");
  const has = ({ hook, layer, point }, word) => (/^\d+$/.test(word) ? layer === Number(word) : point.toLowerCase().includes(word) || hook.toLowerCase() === word);
  return hooks.map(partsOf).filter((one) => words.every((word) => has(one, word)));
}

/** The residual stream after the block in the middle: what most people read first. */
export const usualHook = (model) => `blocks.${Math.max(Math.floor((model?.n_layers ?? 1) / 2), 0)}.hook_resid_post`;
