import { useEffect, useRef, useState } from "preact/hooks";
import { get, post, said, submit } from "../api.js";
import { size } from "../lib/format.js";
import { freeName, modelName } from "../lib/names.js";
import { artifacts } from "../state.js";
import { Dialog } from "../ui/dialog.js";
import { Act } from "../ui/do.js";
import { Field } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Linked } from "../ui/linked.js";
import { HubToken } from "./hub_token.js";
import { Found } from "./models_found.js";

const OFFERED = 4; // models of the cache in sight

/** Register a model: what it is and takes is shown before a byte of its weights is fetched. */
export function Add({ onClose }) {
  const [values, setValues] = useState(/** @type {Record<string, any>} */ ({}));
  const [seen, setSeen] = useState(/** @type {import("../ui/asked.js").Answer} */ ({}));
  const [wrong, setWrong] = useState(/** @type {Record<string, string>} */ ({})); // field → sentence; "" is for none of them
  const [busy, setBusy] = useState(false);
  const looked = useRef(0); // counts up: an answer about another source is dropped
  const set = (changed) => setValues((was) => ({ ...was, ...changed }));
  const from = (source, revision = "") => {
    looked.current++;
    setSeen({});
    setWrong({});
    setValues((was) => ({ ...was, source, revision, ...(was.named ? {} : { name: freeName(modelName(source), artifacts.model.value) }) }));
  };
  const look = async (changed = {}) => {
    const asked = { source: values.source, revision: values.revision || undefined, ...changed };
    const turn = ++looked.current;
    setSeen({ busy: true });
    try {
      const found = await post("/api/models/preview", asked);
      if (turn !== looked.current) return;
      setSeen({ found });
      setWrong({});
    } catch (error) {
      if (turn !== looked.current) return;
      setSeen({ failed: said(error) });
      setWrong(error.fields ?? {});
    }
  };
  const take = ({ source, revision }) => {
    from(source, revision);
    look({ source, revision });
  };
  const add = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const { source, name, revision } = values;
      await submit({ kind: "add_model", source, name, ...(revision ? { revision } : {}) });
      onClose();
    } catch (error) {
      const fields = error.fields ?? {};
      setWrong(["source", "name", "revision"].some((name) => fields[name]) ? fields : { "": said(error) });
      setBusy(false);
    }
  };
  const field = (one) => html`<${Field} ...${one} value=${values[one.name] ?? ""} error=${wrong[one.name] && html`<${Linked} text=${wrong[one.name]} />`} />`;
  const { found } = seen;
  return html`<${Dialog} title="Add a model" onClose=${onClose}>
    <form class="add-model" onSubmit=${add}>
      ${field({ name: "source", label: "Where it comes from", placeholder: "EleutherAI/pythia-70m-deduped", needed: true, list: ["builtin:pico"],
        help: "owner/name of a model of the Hub, a Hugging Face folder of the studio's machine, or builtin:pico", set: (source) => from(source) })}
      ${isHub(values.source) && field({ name: "revision", label: "Branch, tag or commit", help: "main when left empty", set: (revision) => from(values.source, revision) })}
      <${Cached} take=${take} source=${values.source} />
      <div class="preview">
        <button type="button" disabled=${!values.source || seen.busy} onClick=${() => look()}>${seen.busy ? "Looking…" : "Check what it takes"}</button>
        ${seen.failed && !wrong.source && !wrong.revision && html`<p class="refusal" role="alert"><${Linked} text=${seen.failed} /></p>`}
        ${found && html`<${Found} found=${found} />`}
      </div>
      <${HubToken} source=${values.source} failed=${found?.why ?? wrong.source} page=${found?.gated && found.why ? found.page : null} onKept=${() => look()} />
      ${field({ name: "name", label: "What to call it", needed: true, set: (name) => set({ name, named: true }) })}
      ${wrong[""] && html`<p class="refusal" role="alert">${wrong[""]}</p>`}
      <footer class="verbs">
        <button type="button" onClick=${onClose}>Cancel</button>
        <${Act} type="submit" class="first" disabled=${busy}>${busy ? "Sending…" : "Add"}</${Act}>
      </footer>
    </form>
  </${Dialog}>`;
}

const isHub = (source = "") => /^[\w.-]+\/[\w.-]+$/.test(source);

/** Models that are on the studio's machine already, whichever program has fetched them: they need no download. */
function Cached({ take, source }) {
  const [found, setFound] = useState([]);
  const [all, setAll] = useState(false);
  useEffect(() => {
    const known = new Set([...artifacts.model.value.values()].map((one) => `${one.source} ${one.revision}`));
    const isNew = (one) => one.is_whole && !known.has(`${one.source} ${one.revision}`);
    get("/api/cache/models").then(({ models }) => setFound(models.filter(isNew)), () => {}); // only what is offered to be chosen
  }, []);
  if (!found.length) return null;
  return html`<div class="cached" role="group" aria-label="On this machine already">
    <p class="help">On the studio's machine already, without a download:</p>
    ${found.slice(0, all ? undefined : OFFERED).map((one) => html`<button type="button" class="chip" key=${one.path} aria-pressed=${one.source === source}
      title=${`commit ${one.revision.slice(0, 12)}`} onClick=${() => take(one)}>${one.source} <span class="help">${size(one.size_bytes)}</span></button>`)}
    ${!all && found.length > OFFERED && html`<button type="button" class="quiet" onClick=${() => setAll(true)}>${found.length - OFFERED} more</button>`}
  </div>`;
}
