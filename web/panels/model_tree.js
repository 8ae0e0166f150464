import { useMemo, useState } from "preact/hooks";
import { blocksOf, meaning, modulesOf } from "../lib/architecture.js";
import { count } from "../lib/format.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";

const MOST = 200; // hooks that a filter shows

/** A model from its embedding to its unembedding: in each block what can be read, and a way to train there. */
export function Architecture({ model }) {
  const [filter, setFilter] = useState("");
  const blocks = useMemo(() => blocksOf(model), [model]);
  const modules = useMemo(() => modulesOf(model), [model]);
  return html`<section class="architecture" aria-labelledby="architecture">
    <header>
      <h3 id="architecture">Where an SAE can read it <span class="number">${count(model.hooks?.length ?? 0)}</span></h3>
      <input type="search" aria-label="Filter hooks" placeholder="resid_post, blocks.3, mlp…" spellcheck=${false} value=${filter} onInput=${({ target }) => setFilter(target.value)} />
    </header>
    ${filter.trim()
      ? html`<${Filtered} model=${model} blocks=${blocks} filter=${filter.trim()} clear=${() => setFilter("")} />`
      : html`<ul class="tree rows">
          <li><${Modules} title="Embedding" list=${modules.embedding} about=${`${count(model.vocab_size)} tokens, ${count(model.d_model)} wide`} /></li>
          ${blocks.map((block) => html`<${Block} key=${block.layer} model=${model} block=${block} modules=${modules} />`)}
          <li><${Modules} title="Unembedding" list=${modules.head} about=${modules.head.some(({ name }) => /head|embed_out/.test(name)) ? "the norm, and a head of its own" : "the norm; the head is the embedding again"} /></li>
        </ul>`}
  </section>`;
}

function Filtered({ model, blocks, filter, clear }) {
  const words = filter.toLowerCase().split(/\s+/);
  const hooks = blocks.flatMap((block) => block.hooks).filter(({ hook }) => words.every((word) => hook.toLowerCase().includes(word)));
  if (!hooks.length) return html`<p class="empty">No hook has ${filter} in its name. <button class="quiet" onClick=${clear}>Clear</button></p>`;
  return html`<p class="help" role="status">${count(hooks.length)} of ${count(model.hooks.length)}${hooks.length > MOST && `, of which the first ${MOST} are shown`}</p>
    <ul class="tree rows"><li><ul class="points">${hooks.slice(0, MOST).map((one) => html`<${Hook} key=${one.hook} model=${model} ...${one} point=${one.hook} />`)}</ul></li></ul>`;
}

/** A block, whose inside is drawn once it is open: of a model of 80 layers nobody opens all. */
function Block({ model, block, modules }) {
  const [open, setOpen] = useState(false);
  const { layer, hooks } = block;
  return html`<li><details open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary><b>Block ${layer}</b> <span class="help">${count(hooks.length)} hooks</span></summary>
    ${open && html`<${Inside} model=${model} hooks=${hooks} modules=${modules.block(layer)} />`}
  </details></li>`;
}

function Inside({ model, hooks, modules }) {
  const at = (wanted) => html`<ul class="points">${hooks.filter((one) => one.place === wanted).map((one) => html`<${Hook} key=${one.hook} model=${model} ...${one} />`)}</ul>`;
  return html`<div class="inside">
    ${at("before")}
    <div class="module"><${Modules} title="Attention" list=${modules.attention} about=${`${count(model.n_heads)} heads, each ${count(model.d_head)} wide`} />${at("attention")}</div>
    <div class="module"><${Modules} title="MLP" list=${modules.mlp} about=${`${count(model.d_mlp)} neurons`} />${at("mlp")}</div>
    ${at("after")}
  </div>`;
}

function Modules({ title, list, about }) {
  return html`<p class="part"><b>${title}</b> <span class="help">${about}</span></p>
    ${list.length > 0 && html`<p class="details weights">${list.map(({ name, shape, parameters }) => html`<span key=${name} title=${`${count(parameters)} parameters`}><code>${name}</code> ${shape ? shape.join(" × ") : count(parameters)}</span>`)}</p>`}`;
}

function Hook({ model, hook, point, width }) {
  return html`<li class="hook"><code>${point}</code> <span class="help">${meaning(hook)}${width && `, ${count(width)} wide`}</span>
    <a class="train" href=${place("training", ["new"], { model: model.name, hook })} aria-label=${`Train here: ${hook}`}>Train here</a></li>`;
}
