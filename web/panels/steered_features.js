import { useRef } from "preact/hooks";
import { keyOf } from "../lib/edits.js";
import { html } from "../ui/html.js";
import { Edited } from "./steered_edit.js";
import { Find } from "./steered_find.js";

/** The features that are steered with, a slider each, and the search that adds one. `saes`: those of the same model. */
export function Chosen({ desk, ranges, saes }) {
  const { sae, edits } = desk;
  const box = useRef(null);
  const has = (of, feature) => edits.some((one) => one.sae === of && one.feature === feature);
  const add = (of, feature) => has(of, feature) || desk.setEdits((was) => [...was, { sae: of, feature, op: "add", strength: null, scope: "all", off: false }]);
  const drop = (edit) => {
    ranges.drop(edit);
    desk.setEdits(edits.filter((one) => one !== edit));
    box.current.querySelector("[role=combobox]").focus(); // the button that had it goes
  };
  return html`<fieldset class="chosen" ref=${box}><legend>Features</legend>
    ${edits.map((edit) => html`<${Edited} key=${keyOf(edit)} edit=${edit} own=${sae.name} calibration=${ranges.known[keyOf(edit)]}
      ranges=${ranges} set=${(fields) => desk.change(edit, fields)} drop=${() => drop(edit)} />`)}
    <${Uncalibrated} desk=${desk} ranges=${ranges} />
    <${Find} sae=${sae} saes=${saes} taken=${has} add=${add} />
  </fieldset>`;
}

/** Why features have no range, said once for all that have the same reason, and what can be done. */
function Uncalibrated({ desk, ranges }) {
  const why = new Map(); // reason → edits
  for (const edit of desk.edits) {
    const { failed } = ranges.known[keyOf(edit)] ?? {};
    if (failed && edit.op === "add" && !edit.off) why.set(failed, [...(why.get(failed) ?? []), edit]);
  }
  const widen = (edit) => {
    ranges.widen(edit);
    if (edit.strength === null) desk.change(edit, { strength: 1 });
  };
  return [...why].map(([failed, edits]) => html`<div class="uncalibrated" key=${failed}>
    <p class="refusal" role="alert">Feature${edits.length > 1 ? "s" : ""} ${edits.map(({ feature }) => feature).join(", ")}: ${failed}${failed.endsWith(".") ? "" : "."}</p>
    <p class="verbs"><button type="button" onClick=${() => edits.forEach((edit) => ranges.again(edit))}>Look again</button>
      ${ranges.known[keyOf(edits[0])].choices?.includes("pause") && html`<button type="button" onClick=${() => edits.forEach((edit) => ranges.again(edit, true))}>Pause the job and look</button>`}
      <button type="button" onClick=${() => edits.forEach(widen)}>Use a wide range</button></p></div>`);
}
