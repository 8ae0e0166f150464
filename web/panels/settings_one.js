import { useState } from "preact/hooks";
import { patch, said } from "../api.js";
import { useModels } from "../ui/endpoint.js";
import { html } from "../ui/html.js";

/** What a setting is that can only be changed elsewhere. */
function Pinned({ one, label }) {
  return html`<p class="setting"><b>${label}</b> <span>${`${one.value}` || "—"}</span> <span class="help">set by ${one.where}: change it there.</span></p>`;
}

/** Keeping changes of settings: `{keep, failed, fields, told}`; `changed` is told when they are kept. */
function useKeeping(changed) {
  const [state, setState] = useState(/** @type {{failed?: string, fields?: Record<string, string>, told?: string}} */ ({}));
  const keep = async (changes, told = "Kept.") => {
    try {
      await patch("/api/settings", changes);
      setState({ told });
      changed();
      return true;
    } catch (error) {
      setState({ failed: said(error), fields: error.fields ?? {} });
      return false;
    }
  };
  return { ...state, keep };
}

/** What became of it, and the way back to the default. */
function Outcome({ state, name, one }) {
  return html`${one.source === "kept" && html`<button type="button" class="quiet" aria-label=${`Back to the default of ${name}`}
      onClick=${() => state.keep({ [one.name]: null }, "As it is by default.")}>Back to the default</button>`}
    <span role="status" class="help">${state.told}</span>
    ${state.failed && html`<p class="refusal" role="alert" id=${`wrong-${one.name}`}>${state.fields[one.name] ?? state.failed}</p>`}`;
}

export function TextSetting({ one, label, changed }) {
  const [typed, setTyped] = useState(null); // null: as it is
  const state = useKeeping(changed);
  if (!one.changeable) return html`<${Pinned} one=${one} label=${label} />`;
  const value = typed ?? one.value;
  const send = async (event) => {
    event.preventDefault();
    if (await state.keep({ [one.name]: value })) setTyped(null);
  };
  const id = `setting-${one.name}`;
  return html`<form class="setting" onSubmit=${send}>
    <label for=${id}>${label}</label>
    <input id=${id} type="text" value=${value} autocomplete="off" spellcheck=${false} aria-describedby=${`${id}-help${state.failed ? ` wrong-${one.name}` : ""}`}
      aria-invalid=${state.failed ? "true" : undefined} onInput=${(event) => setTyped(event.target.value)} />
    <button type="submit" disabled=${value === one.value || value === ""}>Keep</button>
    <${Outcome} state=${state} name=${label} one=${one} />
    <p class="help" id=${`${id}-help`}>${one.help}</p>
  </form>`;
}

/** A switch holds as soon as it is turned. */
export function Offline({ one, changed }) {
  const state = useKeeping(changed);
  if (!one.changeable) return html`<${Pinned} one=${{ ...one, value: one.value ? "yes" : "no" }} label="Offline" />`;
  const turned = ({ target }) => state.keep({ offline: target.checked }, target.checked ? "Nothing is fetched from now on." : "Models and datasets can be fetched again.");
  return html`<div class="setting switch">
    <label><input type="checkbox" checked=${one.value} aria-describedby="offline-help" onChange=${turned} /> Offline</label>
    <span role="status" class="help">${state.told}</span>
    ${state.failed && html`<p class="refusal" role="alert">${state.failed}</p>`}
    <p class="help" id="offline-help">${one.help}. Endpoints are asked all the same.</p>
  </div>`;
}

/** Whom the form for labels names at first, and which of its models. */
export function Labels({ endpoint, model, endpoints, changed }) {
  const [typed, setTyped] = useState(/** @type {{endpoint?: string, model?: string}} */ ({}));
  const state = useKeeping(changed);
  const { endpoint: who = endpoint.value, model: which = model.value } = typed;
  const { models, busy, failed, ask } = useModels(who);
  if (!endpoint.changeable || !model.changeable) {
    return html`<div class="card">${[[endpoint, "Endpoint"], [model, "Model"]].map(([one, label]) =>
      one.changeable ? html`<p class="setting" key=${label}><b>${label}</b> ${one.value || "—"}</p>` : html`<${Pinned} key=${label} one=${one} label=${label} />`)}</div>`;
  }
  const send = async (event) => {
    event.preventDefault();
    if (await state.keep({ label_endpoint: who, label_model: who === "tokens" ? "" : which })) setTyped({});
  };
  const same = who === endpoint.value && which === model.value;
  return html`<form class="card labels" onSubmit=${send}>
    <div class="field"><label for="label-endpoint">Who is asked</label>
      <select id="label-endpoint" onChange=${({ target }) => setTyped({ endpoint: target.value, model: "" })}>
        <option value="tokens" selected=${who === "tokens"}>nobody: a description from the tokens</option>
        ${endpoints.map(({ name }) => html`<option key=${name} value=${name} selected=${name === who}>${name}</option>`)}</select></div>
    ${who !== "tokens" && html`<div class="field"><label for="label-model">Model</label>
      <div class="beside"><input id="label-model" type="text" list="label-models" autocomplete="off" spellcheck=${false} value=${which}
        onInput=${({ target }) => setTyped({ endpoint: who, model: target.value })} />
      <button type="button" disabled=${busy} onClick=${ask}>${busy ? "Asking…" : "List its models"}</button></div>
      <datalist id="label-models">${(models ?? []).map((name) => html`<option key=${name} value=${name} />`)}</datalist>
      <p class="help" role="status">${models && `It has ${models.length} models: ${models.slice(0, 5).join(", ")}${models.length > 5 ? " …" : ""}`}</p>
      ${failed && html`<p class="refusal" role="alert">${failed}</p>`}</div>`}
    <p class="verbs"><button type="submit" disabled=${same}>Keep</button> <span role="status" class="help">${state.told}</span></p>
    ${state.failed && html`<p class="refusal" role="alert">${state.failed}</p>`}
  </form>`;
}
