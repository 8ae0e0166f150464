import { count, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";

/** One model: what it is, what it takes in each precision, and where an SAE can read it. */
export function Model({ model }) {
  const facts = [
    ["Source", html`<code>${model.source}</code>`],
    ["Family", model.family],
    ["Parameters", count(model.parameters)],
    ["Layers", count(model.n_layers)],
    ["Width", count(model.d_model)],
    ["Vocabulary", count(model.vocab_size)],
    ["Context", model.context === null ? "—" : `${count(model.context)} tokens`],
    ["Licence", model.licence],
  ];
  const taken = Object.entries(model.weight_bytes ?? {});
  return html`<${Panel} title=${model.name} verbs=${html`<a href=${place("models")}>All models</a>`}>
    <dl class="facts card">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value ?? "—"}</dd></div>`)}</dl>
    ${taken.length > 0 && html`<section aria-labelledby="taken">
      <h3 id="taken">Memory for its weights</h3>
      <dl class="facts card">${taken.map(([precision, bytes]) =>
        html`<div key=${precision}><dt>${precision}</dt><dd>${size(bytes)}</dd></div>`)}</dl>
    </section>`}
    <section aria-labelledby="hooks">
      <h3 id="hooks">Where an SAE can read it <span class="number">${count(model.hooks?.length ?? 0)}</span></h3>
      <${Hooks} model=${model} />
    </section>
  </${Panel}>`;
}

/** Hook points, a row for each layer. */
function Hooks({ model }) {
  const layers = new Map();
  for (const hook of model.hooks ?? []) {
    const [, layer = "", point = hook] = /^blocks\.(\d+)\.(.+)$/.exec(hook) ?? [];
    layers.set(layer, [...(layers.get(layer) ?? []), [hook, point]]);
  }
  return html`<ul class="rows">${[...layers].map(([layer, hooks]) => html`<li class="hooks" key=${layer}>
    <b>${layer === "" ? "outside" : `Layer ${layer}`}</b>
    <p>${hooks.map(([hook, point]) => html`<a key=${hook} href=${place("training", ["new"], { model: model.name, hook })}
      title=${`Train an SAE on ${hook}, ${count(model.hook_widths?.[point])} wide`}><code>${point}</code></a>`)}</p>
  </li>`)}</ul>`;
}
