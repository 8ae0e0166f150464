import { keyOf } from "../lib/edits.js";
import { html } from "../ui/html.js";
import { Edited } from "./steered_edit.js";
import { Find } from "./steered_find.js";

/** The features that are steered with, a slider each, and the search that adds one. `saes`: those of the same model. */
export function Chosen({ desk, ranges, saes }) {
  const { sae, edits } = desk;
  const has = (of, feature) => edits.some((one) => one.sae === of && one.feature === feature);
  const add = (of, feature) => has(of, feature) || desk.setEdits([...edits, { sae: of, feature, op: "add", strength: null, scope: "all", off: false }]);
  const drop = (edit) => {
    ranges.stop(edit);
    desk.setEdits(edits.filter((one) => one !== edit));
  };
  return html`<fieldset class="chosen"><legend>Features</legend>
    ${edits.map((edit) => html`<${Edited} key=${keyOf(edit)} edit=${edit} own=${sae.name} calibration=${ranges.known[keyOf(edit)]}
      ranges=${ranges} set=${(fields) => desk.change(edit, fields)} drop=${() => drop(edit)} />`)}
    <${Find} sae=${sae} saes=${saes} taken=${has} add=${add} />
  </fieldset>`;
}
