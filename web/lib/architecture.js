// A model as its text goes through it: where it can be read, and the modules that stand there. Pure.

const HOOK = /^blocks\.(\d+)\.(.+)$/;
const PLACES = { "attn.hook_z": "attention", hook_attn_out: "attention", "mlp.hook_in": "mlp", "mlp.hook_post": "mlp", hook_mlp_out: "mlp" };
const ATTENTION = /attn|attention/;

// What is read at each point, in a few words.
const POINTS = {
  hook_resid_pre: "the residual stream before the block",
  "attn.hook_z": "the heads' outputs, side by side",
  hook_attn_out: "what attention adds to the stream",
  "mlp.hook_in": "what the MLP reads",
  "mlp.hook_post": "the neurons",
  hook_mlp_out: "what the MLP adds to the stream",
  hook_resid_post: "the residual stream after the block",
};

/** What is read at a hook, in a few words; "" for one that is not known. */
export const meaning = (hook) => POINTS[HOOK.exec(hook)?.[2]] ?? "";

/**
 * The blocks of a model in order, each with its hooks by place: before it, in its attention, in its MLP, after it.
 * @returns {{layer: number, hooks: {hook: string, point: string, width: number | undefined, place: string}[]}[]}
 */
export function blocksOf(model) {
  const blocks = new Map();
  for (const hook of model.hooks ?? []) {
    const [, layer, point] = HOOK.exec(hook) ?? [];
    if (point === undefined) continue;
    if (!blocks.has(layer)) blocks.set(layer, []);
    const place = PLACES[point] ?? (point.endsWith("_pre") ? "before" : "after");
    blocks.get(layer).push({ hook, point, width: model.hook_widths?.[point], place });
  }
  return [...blocks].map(([layer, hooks]) => ({ layer: Number(layer), hooks }));
}

/**
 * The modules with weights of each part: `{embedding, blocks: (layer) → {attention, mlp, other}, head}`, each a list of
 * `{name, shape, parameters}`. Where the tree is not known all are empty.
 */
export function modulesOf(model) {
  const empty = { embedding: [], head: [], block: () => ({ attention: [], mlp: [], other: [] }) };
  if (!model.tree) return empty;
  const [outside, groups] = [[], []];
  const walk = (node, path) => {
    for (const child of node.children) {
      const name = path ? `${path}.${child.name}` : child.name;
      if (/^\d/.test(child.name) && child.dtype === null) groups.push({ layers: layersIn(child.name), modules: leaves(child, "") });
      else if (child.dtype !== null) outside.push(leaf(path, child));
      else walk(child, name);
    }
  };
  walk(model.tree, "");
  const [first] = groups.map((group) => group.modules.length);
  return {
    embedding: outside.filter(({ name }) => /embed|wte|wpe/.test(name) && !/embed_out/.test(name)),
    head: outside.filter(({ name }) => !/embed|wte|wpe/.test(name) || /embed_out/.test(name)),
    block: first === undefined ? empty.block : (layer) => parted(groups.find(({ layers }) => layers(layer))?.modules ?? []),
  };
}

/** "0-3, 5" → whether a layer is one of them. */
function layersIn(name) {
  const spans = name.split(", ").map((span) => span.split("-").map(Number));
  return (layer) => spans.some(([from, to = from]) => from <= layer && layer <= to);
}

function leaves(node, path) {
  return node.children.flatMap((child) =>
    child.dtype === null ? leaves(child, path ? `${path}.${child.name}` : child.name) : [leaf(path, child)]);
}

const leaf = (path, { name, shape, parameters }) => ({ name: name === "weight" && path ? path : `${path}.${name}`.replace(/^\./, ""), shape, parameters });

function parted(modules) {
  const where = ({ name }) => (ATTENTION.test(name) && !/norm|ln_/.test(name) ? "attention" : /mlp/.test(name) && !/norm|ln_/.test(name) ? "mlp" : "other");
  const found = { attention: [], mlp: [], other: [] };
  for (const one of modules) found[where(one)].push(one);
  return found;
}
