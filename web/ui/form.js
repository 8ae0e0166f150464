import { useState } from "preact/hooks";
import { said } from "../api.js";
import { Dialog } from "./dialog.js";
import { Act } from "./do.js";
import { html } from "./html.js";

/**
 * A form in a dialog. `fields`: what `Field` takes, each with the name that the studio has for it; `start`: their first
 * values; `send`: values → a promise, whose failure is shown at the field that is at fault. It closes when that is kept.
 */
export function Form({ title, verb, fields, start = {}, send, onClose, children }) {
  const [values, setValues] = useState(start);
  const [failed, setFailed] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (changed) => setValues((was) => ({ ...was, ...changed }));
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await send(given(values));
      onClose();
    } catch (error) {
      setFailed({ message: said(error), fields: error.fields ?? {} });
      setBusy(false);
    }
  };
  const shown = fields.filter(({ when }) => !when || when(values));
  const placed = failed && shown.some(({ name }) => failed.fields[name]);
  const drawn = (some) => some.map((field) => html`<${Field} key=${field.name} ...${field} value=${values[field.name] ?? ""}
    error=${failed?.fields[field.name]} set=${(value) => set(field.also ? field.also(value, values) : { [field.name]: value })} />`);
  const folded = shown.filter((field) => field.folded);
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form onSubmit=${submit}>
      ${drawn(shown.filter((field) => !field.folded))}
      ${folded.length > 0 && html`<details class="folded" open=${folded.some(({ name }) => failed?.fields[name])}><summary>More</summary>${drawn(folded)}</details>`}
      ${typeof children === "function" ? children(values, set) : children}
      ${failed && !placed && html`<p class="refusal" role="alert">${failed.message}</p>`}
      <footer class="verbs">
        <button type="button" onClick=${onClose}>Cancel</button>
        <${Act} type="submit" class="first" disabled=${busy}>${busy ? "Sending…" : verb}</${Act}>
      </footer>
    </form>
  </${Dialog}>`;
}

/** Values that somebody has given: no empty text, which means that the studio chooses. */
function given(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value !== null && value?.length !== 0));
}

/**
 * One field. `kind`: text, area (of several lines), secret, number, numbers (a list of them, with commas between), words
 * (a list, likewise), choice (with `choices`, [value, words] each) or switch; `help`: what it is, in a few words;
 * `error`: what is wrong with it; `folded`: below "More", for those who know what they want.
 */
export function Field({ name, label, help, error, kind = "text", choices, value, set, needed, list, ...more }) {
  const id = `field-${name}`;
  const about = [help && `${id}-help`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  const common = { id, name, required: needed, "aria-describedby": about, "aria-invalid": error ? "true" : undefined };
  return html`<div class="field" data-kind=${kind}>
    <label for=${id}>${label}</label>
    ${control(kind, common, choices, value, set, list, more)}
    ${list && html`<datalist id=${`${id}-list`}>${list.map((one) => html`<option value=${one} key=${one} />`)}</datalist>`}
    ${help && html`<p class="help" id=${`${id}-help`}>${help}</p>`}
    ${error && html`<p class="refusal" role="alert" id=${`${id}-error`}>${error}</p>`}
  </div>`;
}

function control(kind, common, choices, value, set, list, more) {
  if (kind === "choice") {
    return html`<select ...${common} value=${value} onChange=${(event) => set(event.target.value)}>
      ${choices.map(([of, words]) => html`<option value=${of} key=${of} selected=${of === value}>${words}</option>`)}</select>`;
  }
  if (kind === "switch") {
    return html`<input type="checkbox" ...${common} checked=${value === true} onChange=${(event) => set(event.target.checked)} />`;
  }
  if (kind === "area") return html`<textarea ...${common} ...${more} rows="4" value=${value} onInput=${(event) => set(event.target.value)}></textarea>`;
  if (kind === "numbers" || kind === "words") return html`<${List} common=${common} more=${more} kind=${kind} value=${value} set=${set} list=${list} />`;
  const number = kind === "number";
  const heard = ({ target }) => set(number && target.value !== "" ? Number(target.value) : target.value);
  return html`<input ...${common} ...${more} type=${number ? "number" : kind === "secret" ? "password" : "text"} step=${number ? "any" : undefined}
    list=${list ? `${common.id}-list` : undefined} autocomplete="off" spellcheck=${false} value=${value} onInput=${heard} />`;
}

/** A list in one line: what is typed stays as it is, what is set are its parts. */
function List({ common, more, kind, value, set, list }) {
  const [text, setText] = useState([value].flat().join(", "));
  const heard = ({ target }) => {
    setText(target.value);
    const parts = target.value.split(",").map((one) => one.trim()).filter(Boolean);
    set(kind === "numbers" ? parts.map((one) => (Number.isFinite(Number(one)) ? Number(one) : one)) : parts);
  };
  return html`<input ...${common} ...${more} type="text" list=${list ? `${common.id}-list` : undefined} autocomplete="off" spellcheck=${false} value=${text} onInput=${heard} />`;
}
