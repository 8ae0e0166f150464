// The fields of a training below the fold, in groups; what each is, and what stands in it, the studio says.

import { Field } from "../ui/form.js";
import { html } from "../ui/html.js";
import { isOpen } from "../lib/training_spec.js";

const PRECISIONS = ["auto", "fp32", "bf16", "fp16", "int8", "nf4"].map((one) => [one, one]);
const KEPT = [["no", "no"], ["bf16", "bf16"], ["int8", "int8"]];
const OPEN = [["", "as memory allows"], ["yes", "yes"], ["no", "no"]];

// Name, label, kind where it is no number, choices.
/** @type {[title: string, fields: [name: string, label: string, kind?: string, choices?: string[][]][]][]} */
const GROUPS = [
  ["Optimiser", [["lr", "Learning rate"], ["batch_tokens", "Tokens in a step"], ["steps", "Steps, instead of tokens"], ["seed", "Seeds"], ["data_seed", "Seed of the order of the text"], ["tanh", "Weight of the tanh loss"]]],
  ["Memory", [["precision", "Precision of the model", "choice", PRECISIONS], ["whole_model", "Keep the whole model", "choice", OPEN], ["forward_tokens", "Tokens in a pass of the model"],
    ["buffer_tokens", "Tokens in the buffer"], ["micro_tokens", "Micro-batch, tokens"], ["saes_at_once", "SAEs at once"], ["threads", "CPU threads"]]],
  ["Data", [["outliers", "Train on outliers too", "switch"], ["keep_activations", "Keep activations on disk", "choice", KEPT]]],
  ["Evaluation and checkpoints", [["evaluate_every", "Steps between measurements"], ["checkpoint_every_s", "Seconds between checkpoints"], ["keep_checkpoints", "Checkpoints to keep"]]],
];

/** What may be left as it is. A group with something wrong in it stands open. */
export function Folded({ values, set, schema, errors }) {
  return GROUPS.map(([title, fields]) => {
    const shown = fields.filter(([name]) => isOpen(name, values));
    if (!shown.length) return null;
    const changed = shown.filter(([name]) => values[name] !== schema.start[name]).length;
    return html`<details class="group" key=${title} open=${shown.some(([name]) => errors[name])}>
      <summary>${title} ${changed > 0 && html`<span class="number">${changed} changed</span>`}</summary>
      <div class="fieldgrid">${shown.map(([name, label, kind, choices]) => html`<${Field} key=${name} name=${name} label=${label} kind=${kind ?? "text"} choices=${choices}
        inputmode=${kind ? undefined : "decimal"} placeholder=${kind ? undefined : "the studio chooses"} help=${schema.fields[name]?.description} error=${errors[name]}
        value=${values[name] ?? ""} set=${(value) => set({ [name]: value })} />`)}</div>
    </details>`;
  });
}
