import { useRef, useState } from "preact/hooks";
import { post, said, submit } from "../api.js";
import { datasetName, freeName } from "../lib/names.js";
import { artifacts } from "../state.js";
import { Dialog } from "../ui/dialog.js";
import { Act } from "../ui/do.js";
import { Field } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Linked } from "../ui/linked.js";
import { Found, chosenOf } from "./datasets_found.js";
import { Upload } from "./datasets_upload.js";
import { HubToken } from "./hub_token.js";

const BUILTIN = "builtin:python";
const WAYS = [
  ["hub", "The Hub", "datasets of huggingface.co"],
  ["machine", "The studio's machine", "a file or folder there"],
  ["upload", "This browser", "sent to the studio from here"],
  ["builtin", "Built in", "Python's library, no download"],
];
const SOURCES = {
  hub: { help: "owner/name of a dataset of the Hub", placeholder: "roneneldan/TinyStories", "data-first": "" },
  machine: { help: "the path of a .txt, .md, .py, .jsonl, .json, .csv, .parquet or .arrow file, also as .gz or .zst; or of a folder of them", placeholder: "/data/stories.jsonl" },
};

/** Bring text in: where from, a look at what is there, which part of it, and what to call it. */
export function Add({ onClose }) {
  const [way, setWay] = useState("hub");
  const [values, setValues] = useState(/** @type {Record<string, any>} */ ({}));
  const [seen, setSeen] = useState(/** @type {import("../ui/asked.js").Answer} */ ({}));
  const [wrong, setWrong] = useState(/** @type {Record<string, string>} */ ({})); // field → sentence; "" is for none of them
  const [busy, setBusy] = useState(false);
  const looked = useRef(0); // counts up: an answer about another source is dropped
  const taken = useRef(false); // an upload, by the job that reads it
  const set = (changed) => setValues((was) => ({ ...was, ...changed }));
  const free = (name) => freeName(name, artifacts.dataset.value);

  const from = (source, name) => {
    looked.current++;
    setSeen({});
    setWrong({});
    setValues(({ config, split, text_column, ...was }) => ({ ...was, source, ...(was.named ? {} : { name: free(name) }) }));
  };
  const choose = (to) => {
    setWay(to);
    if (to === "builtin") from(BUILTIN, datasetName(BUILTIN));
    else from("", "");
  };
  /** @param {Record<string, any>} [changed] */
  const look = async (changed = {}) => {
    const turn = ++looked.current;
    const { source, config, split } = { ...values, ...changed };
    set(changed);
    setSeen({ ...seen, busy: true, failed: undefined });
    try {
      const found = await post("/api/datasets/preview", given({ source, config, split }));
      if (turn !== looked.current) return;
      setSeen({ found });
      set({ config: found.config ?? "", split: found.split ?? "" });
      setWrong({});
    } catch (error) {
      if (turn !== looked.current) return;
      setSeen({ found: seen.found, failed: said(error) }); // its choices stay, to choose another
      setWrong(error.fields ?? {});
    }
  };
  const add = async (event) => {
    event.preventDefault();
    setBusy(true);
    taken.current = true; // also when the dialog is closed before the answer
    try {
      const { named, ...spec } = values;
      await submit({ kind: "add_dataset", ...given(spec) });
      onClose();
    } catch (error) {
      taken.current = false;
      const fields = error.fields ?? {};
      setWrong(drawn.some((name) => fields[name]) ? fields : { "": said(error) });
      setBusy(false);
    }
  };
  const field = (one) => html`<${Field} key=${one.name} ...${one} value=${values[one.name] ?? ""} error=${wrong[one.name] && html`<${Linked} text=${wrong[one.name]} />`}
    set=${one.set ?? ((value) => set({ [one.name]: value }))} />`;
  const drawn = fieldsOf(way, seen.found);
  return html`<${Dialog} title="Add a dataset" onClose=${onClose}>
    <form class="add-dataset" onSubmit=${add}>
      <${Ways} way=${way} choose=${choose} />
      ${SOURCES[way] && field({ name: "source", label: "Where it comes from", needed: true, ...SOURCES[way], set: (source) => from(source, datasetName(source)) })}
      ${way === "upload" && html`<${Upload} wrong=${wrong.source} taken=${taken} onSent=${(source, name) => from(source, source && datasetName(name))} />`}
      <${Look} seen=${seen} source=${values.source} look=${look} placed=${drawn.some((name) => wrong[name])} />
      ${way === "hub" && html`<${HubToken} source=${values.source} failed=${wrong.source} onKept=${() => look()} />`}
      ${seen.found && html`<${Found} found=${seen.found} values=${values} wrong=${wrong} field=${field} look=${look} />`}
      ${field({ name: "name", label: "What to call it", needed: true, set: (name) => set({ name, named: true }) })}
      ${field({ name: "rows", label: "Documents at most", kind: "number", min: 1, help: "all of them when left empty" })}
      <details class="folded" open=${FOLDED.some(({ name }) => wrong[name])}><summary>More</summary>${FOLDED.map(field)}</details>
      ${wrong[""] && html`<p class="refusal" role="alert">${wrong[""]}</p>`}
      <footer class="verbs">
        <button type="button" onClick=${onClose}>Cancel</button>
        <${Act} type="submit" class="first" disabled=${busy || !values.source}>${busy ? "Sending…" : "Add"}</${Act}>
      </footer>
    </form>
  </${Dialog}>`;
}

const FOLDED = [
  { name: "tokens", label: "Text for so many tokens", kind: "number", min: 1, help: "it stops once there is about as much, at 5 bytes a token" },
  { name: "bytes", label: "Bytes of text at most", kind: "number", min: 1 },
  { name: "shuffle_seed", label: "Mix by seed", kind: "number", min: 0, help: "the documents come mixed, a part of them at a time; in order when left empty" },
];

/** The fields that are drawn: what is wrong with another is said at the foot. */
const fieldsOf = (way, found) => [
  ...(way === "builtin" ? [] : ["source"]), "name", "rows", ...FOLDED.map(({ name }) => name),
  ...(found ? chosenOf(found) : []),
];

const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value != null));

/** The four places that text may come from. */
function Ways({ way, choose }) {
  return html`<fieldset class="ways">
    <legend>Where is the text?</legend>
    ${WAYS.map(([of, words, about]) => html`<label key=${of}>
      <input type="radio" name="way" aria-label=${words} value=${of} checked=${of === way} aria-describedby=${`way-${of}`} onChange=${() => choose(of)} />
      <span>${words}</span> <span class="help" id=${`way-${of}`}>${about}</span></label>`)}
  </fieldset>`;
}

/** The button that looks at the source, and why that could not be done where no field is at fault. */
function Look({ seen, source, look, placed }) {
  return html`<div class="preview">
    <button type="button" disabled=${!source || seen.busy} onClick=${() => look()}>${seen.busy ? "Looking…" : "Preview"}</button>
    ${seen.busy && !seen.found && html`<span class="help late" role="status">Nothing of it is stored yet.</span>`}
    ${seen.failed && !placed && html`<p class="refusal" role="alert"><${Linked} text=${seen.failed} /></p>`}
  </div>`;
}
