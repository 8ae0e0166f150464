import { submit } from "../api.js";
import { count, number, size } from "../lib/format.js";
import { freeName, named } from "../lib/names.js";
import { artifacts, newest } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Preview } from "../ui/preview.js";
import { Table } from "../ui/table.js";
import { HubToken } from "./hub_token.js";

const nameOf = (source) => freeName(named(source.replace(/^[^:]*\/(?=[^/]*$)/, "").replaceAll("/", "-"), "sae"), artifacts.sae.value);

/** Bring in an SAE that somebody has published; what is at a source is shown before it is fetched. */
export function AddSae({ onClose }) {
  const also = (source, values) => ({ source, ...(values.named ? {} : { name: nameOf(source) }) });
  const models = newest("model");
  const fields = [
    { name: "source", label: "Where it comes from", placeholder: "google/gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82", needed: true, also,
      help: "owner/name of a repository of the Hub, with :path for one of several; a folder or file of the studio's machine" },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }) },
    { name: "model", label: "Model that it reads", kind: "choice", choices: [["", "as its files say"], ...models.map((one) => [one.name, one.name])] },
    { name: "hook", label: "Hook", help: "where its files do not say it, as blocks.12.hook_resid_post" },
    { name: "allow_pickle", label: "Also .pt and .pth", kind: "switch", help: "converted in a process of their own, and never executed" },
  ];
  const send = ({ named: _, ...spec }) => submit({ kind: "add_sae", ...spec });
  return html`<${Form} title="Add an SAE" verb="Add" fields=${fields} send=${send} onClose=${onClose}>
    ${(values, set) => {
      const take = (from) => (path) => set(also(`${from.split(":")[0]}:${path}`, values));
      return html`<${Preview} at="/api/saes/preview" source=${values.source}
          shown=${(found, from) => html`<${Found} found=${found} source=${from} take=${take(from)} />`} />
        <${HubToken} source=${values.source} />`;
    }}
  </${Form}>`;
}

/** The SAEs of a source, nothing of which is fetched yet; one is chosen by its button. */
function Found({ found, source, take }) {
  const columns = [
    ["Path", "name", (one) => one.path || "."],
    ["Layer", "figure", (one) => count(one.layer)],
    ["Width", "figure", (one) => count(one.width)],
    ["L0", "figure", (one) => number(one.l0, 1)],
    ["Format", "text", (one) => one.format],
    ["Size", "figure", (one) => size(one.bytes)],
    ["", "verbs", (one) => html`<button type="button" aria-label=${`Take ${one.path || source}`} onClick=${() => take(one.path)}>Take</button>`],
  ];
  return html`<p>${count(found.count)} SAEs${found.licence ? ` · licence ${found.licence}` : ""}</p>
    ${found.saes.length > 0 && html`<div class="scrolled"><${Table} label="What is there" columns=${columns} rows=${found.saes} of=${(one) => one.path} /></div>`}`;
}
