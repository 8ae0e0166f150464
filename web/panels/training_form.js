import { useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { count, share } from "../lib/format.js";
import { usualHook } from "../lib/hooks.js";
import { freeName, saeName } from "../lib/names.js";
import { TRANSCODERS, defaultsOf, lacking, numbersOf, isOpen, numbersText, presetOf, specOf, valuesOf } from "../lib/training_spec.js";
import { go } from "../route.js";
import { artifacts } from "../state.js";
import { useAsked } from "../ui/asked.js";
import { Act } from "../ui/do.js";
import { Field } from "../ui/form.js";
import { html } from "../ui/html.js";
import { HookPicker } from "./hook_picker.js";
import { takenNames } from "./run_spec.js";
import { Folded } from "./training_fields.js";
import { Plan } from "./training_plan.js";

const ARCHITECTURES = [
  ["batchtopk", "BatchTopK"], ["topk", "TopK"], ["matryoshka", "Matryoshka"], ["jumprelu", "JumpReLU"], ["standard", "Standard"], ["gated", "Gated"],
  ["transcoder", "Transcoder"], ["topk_transcoder", "TopK transcoder"],
];
const PRESETS = { "quick-look": "Quick look", standard: "Standard", research: "Research" };

/** A name for what is made: the model and the hook, or of several hooks the model. */
const nameFor = (model, hooks) => freeName(saeName(model ?? "sae", hooks.length === 1 ? hooks[0] : ""), takenNames());

/** What is trained, on what and how; what that would take stands beside it. */
export function TrainingForm({ schema, start, texts, hook, wanted }) {
  const modelOf = (text) => artifacts.model.value.get(texts.find((one) => one.name === text)?.model);
  const [values, setValues] = useState(() => first(start, texts, hook, wanted, modelOf));
  const [named, setNamed] = useState(false);
  const [failed, setFailed] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (changed) => setValues((was) => {
    const now = { ...was, ...changed };
    const renamed = !named && !start.given && ("hook" in changed || "tokenization" in changed);
    return renamed ? { ...now, name: nameFor(modelOf(now.tokenization)?.name, now.hook) } : now;
  });
  const spec = specOf(values);
  const seen = artifacts.sae.value.get(values.extends)?.tokens;
  const lacks = lacking(values, seen);
  const plan = useAsked("/api/plan", lacks ? null : { spec });
  const errors = { ...plan.fields, ...failed?.fields };
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      go("training", [(await submit(spec)).id]);
    } catch (error) {
      setFailed({ message: said(error), fields: error.fields ?? {} });
      setBusy(false);
    }
  };
  const change = (changed) => {
    setFailed(null);
    set(changed);
  };
  const form = { values, set: change, errors };
  return html`<form class="training" onSubmit=${send}>
    <div class="asked">
      ${values.extends ? html`<${Settled} values=${values} errors=${errors} />` : html`<${Presets} ...${form} presets=${schema.presets} />
        <${Text} ...${form} texts=${texts} />
        <${HookPicker} model=${modelOf(values.tokenization)} value=${values.hook} set=${(hook) => change({ hook })} error=${errors.hook} />
        <${Architectures} ...${form} hooks=${modelOf(values.tokenization)?.hooks} />`}
      <${Numbers} ...${form} texts=${texts} seen=${seen} usual=${defaultsOf(schema.fields)} />
      <${Field} name="name" label="What to call it" needed help=${plan.found?.names.length > 1 ? "What the names of all begin with." : undefined} error=${errors.name}
        value=${values.name} set=${(name) => { setNamed(true); change({ name }); }} />
      <section aria-label="More settings"><${Folded} ...${form} schema=${{ ...schema, start: start.values }} /></section>
    </div>
    <div class="beside-form"><${Plan} answer=${plan} lacks=${lacks} use=${(field, value) => change({ [field]: value })} />
      ${failed && html`<p class="refusal" role="alert">${failed.message}</p>`}
      <p class="verbs"><${Act} type="submit" class="first" disabled=${busy || lacks !== ""}>${busy ? "Sending…" : "Train"}</${Act}></p></div>
  </form>`;
}

function first({ values, given }, texts, hook, wanted, modelOf) {
  const there = (name) => texts.some((one) => one.name === name);
  const tokenization = [wanted, values.tokenization].find(there) ?? texts[0].name;
  const hooks = hook ? hook.split(",") : given ? values.hook : [usualHook(modelOf(tokenization))];
  const name = given ? freeName(values.extends || values.name, takenNames()) : nameFor(modelOf(tokenization)?.name, hooks);
  return { ...values, tokenization, hook: hooks, name };
}

/** Values that go together, put into their fields, where they can be seen and changed. */
function Presets({ values, set, presets }) {
  const now = presetOf(values, presets);
  const words = (one) => `${numbersText(one.width)} wide, ${numbersText(one.tokens)} tokens`;
  return html`<fieldset class="field presets"><legend>Preset</legend><p class="segments">${Object.entries(presets).map(([name, one]) => html`<label key=${name}>
      <input type="radio" name="preset" checked=${now === name} onChange=${() => set(valuesOf(one))} /> <span>${PRESETS[name] ?? name}</span></label>`)}</p>
    <p class="help">${now ? `${PRESETS[now] ?? now}: ${words(presets[now])}.` : "Own values: none of the presets."} It fills in width, tokens and the size of a step.</p></fieldset>`;
}

/** The text that is read, which knows its model. */
function Text({ values, set, errors, texts }) {
  const choices = texts.map((one) => [one.name, `${one.name} (${one.model}${one.coming ? ", being made" : ""})`]);
  const one = texts.find(({ name }) => name === values.tokenization);
  const help = one?.tokens ? `${one.dataset} in tokens of ${one.model}: ${count(one.tokens)} of them, in windows of ${count(one.context)}.` : "A dataset cut into the tokens of a model.";
  const chosen = (tokenization) => {
    const model = artifacts.model.value.get(texts.find(({ name }) => name === tokenization)?.model);
    const kept = values.hook.filter((hook) => !model?.hooks || model.hooks.includes(hook)); // of another model they may not be there
    set({ tokenization, hook: kept.length ? kept : [usualHook(model)] });
  };
  return html`<${Field} name="tokenization" label="Tokenization" kind="choice" choices=${choices} help=${help} error=${errors.tokenization} value=${values.tokenization} set=${chosen} />`;
}

/** What stays as it is when an SAE is trained further. */
function Settled({ values, errors }) {
  const facts = [["Goes on with", values.extends], ["Tokenization", values.tokenization], ["Hook", values.hook.join(", ")], ["Architecture", values.architecture.join(", ")], ["Width", values.width]];
  const wrong = ["extends", "tokenization", "hook", "architecture", "width", "k"].map((name) => errors[name]).filter(Boolean);
  return html`<section aria-label="What stays as it is"><dl class="facts card">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    <p class="help">It goes on from the newest checkpoint, and makes an SAE of its own.</p>
    ${wrong.map((sentence) => html`<p class="refusal" role="alert" key=${sentence}>${sentence}</p>`)}</section>`;
}

function Architectures({ values, set, errors, hooks }) {
  const turn = (name) => {
    const now = values.architecture.includes(name) ? values.architecture.filter((one) => one !== name) : [...values.architecture, name];
    if (now.length) set({ architecture: ARCHITECTURES.map(([one]) => one).filter((one) => now.includes(one)) });
  };
  return html`<fieldset class="field"><legend>Architecture</legend>
    <p class="segments">${ARCHITECTURES.map(([name, words]) => html`<label key=${name}><input type="checkbox" checked=${values.architecture.includes(name)} onChange=${() => turn(name)} /> <span>${words}</span></label>`)}</p>
    <p class="help">BatchTopK is a good first choice; several are trained side by side. A transcoder rebuilds another hook than it reads.</p>
    ${errors.architecture && html`<p class="refusal" role="alert">${errors.architecture}</p>`}</fieldset>
    ${values.architecture.some((one) => TRANSCODERS.has(one)) && html`<div class="fieldgrid">
      <${Field} name="hook_out" label="Hook that is rebuilt" list=${hooks} placeholder="blocks.3.hook_mlp_out" help="What a transcoder writes, out of what it reads." error=${errors.hook_out}
        value=${values.hook_out ?? ""} set=${(hook_out) => set({ hook_out })} />
      <${Field} name="skip" label="Add a linear map of its input" kind="switch" help="A skip transcoder." error=${errors.skip} value=${values.skip} set=${(skip) => set({ skip })} /></div>`}`;
}

/** How wide, how sparse, on how much text. */
function Numbers({ values, set, errors, texts, seen, usual }) {
  const several = (name) => {
    const numbers = numbersOf(values[name] ?? "");
    if (numbers.length > 1) return ` ${count(numbers.length)} values: ${numbers.map((one) => numbersText(one)).join(" and ")}.`;
    return values[name]?.includes(",") && Number(numbers[0]) >= 10_000 ? ` One value, ${numbersText(numbers)}; with a space behind the comma there are several.` : "";
  };
  const there = texts.find(({ name }) => name === values.tokenization)?.tokens;
  const [tokens] = numbersOf(values.tokens ?? "");
  const read = !(there && typeof tokens === "number" && tokens > 0) ? "" : tokens < there ? ` ${share(tokens / there)} of the text.` : ` ${(tokens / there).toFixed(1)} times the text.`;
  const often = seen ? `In all: ${values.extends} was trained on ${count(seen)}.` : "More is better.";
  const of = (name, label, help) => isOpen(name, values) && html`<${Field} key=${name} name=${name} label=${label} inputmode="decimal" placeholder=${usual[name]} help=${help} error=${errors[name]}
    value=${values[name] ?? ""} set=${(value) => set({ [name]: value })} />`;
  return html`<div class="fieldgrid">
    ${of("width", "Width", `Latents, commonly 8 to 32 times the width of the hook; several with commas.${several("width")}`)}
    ${of("k", "k", `Latents that fire on a token.${several("k")}`)}
    ${of("l1", "l1", `Weight of L1: more is sparser; 0.2, for gated 0.3, when left empty.${several("l1")}`)}
    ${of("tokens", "Training tokens", values.steps ? "Not heeded: steps are given below." : `${often}${read}`)}
  </div>`;
}
