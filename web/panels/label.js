import { useState } from "preact/hooks";
import { submit } from "../api.js";
import { useLoaded } from "../ui/asked.js";
import { ListModels, useLabelDefaults } from "../ui/endpoint.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Estimate, asking, chosen, useEndpoints, useLists, which, whom } from "./feature_asking.js";

const asks = ({ endpoint }) => endpoint !== "tokens";

/** Let features be labelled: by whom, with which prompt, which of them, and what that costs before it begins. */
export function LabelFeatures({ sae, query, found, onClose }) {
  const [endpoints, lists] = [useEndpoints(), useLists(sae)];
  const templates = useLoaded("/api/templates").found?.templates ?? [{ name: "default" }];
  const [models, setModels] = useState([]);
  const defaults = useLabelDefaults();
  const [model, ...limits] = asking(endpoints, asks, models);
  const fields = [
    { name: "endpoint", label: "Who is asked", kind: "choice",
      choices: [["tokens", "nobody: a description from the tokens, without an LLM"], ...endpoints.map((one) => [one.name, `${one.name} (${one.url})`])] },
    model,
    ...which(query, lists, found.total, [["unlabeled", "those that are alive and have no label"]]),
    { name: "template", label: "Prompt", kind: "choice", choices: templates.map((one) => [one.name, one.name]), when: asks },
    ...limits,
    { name: "again", label: "Also those that have one", kind: "switch", folded: true, help: "a person's label is never replaced" },
  ];
  const start = { ...defaults, which: "unlabeled", top: 100, template: "default", list: lists[0]?.name ?? "" };
  if (!defaults) return null; // for a moment: the form begins with them
  return html`<${Form} title=${`Label features of ${sae.name}`} verb="Label" fields=${fields} start=${start} onClose=${onClose}
    send=${async (values) => submit(await spec(sae, query, values, lists))}>
    ${(values) => html`
      ${asks(values) && html`<${ListModels} key=${values.endpoint} name=${values.endpoint} found=${setModels} />`}
      ${asks(values) && html`<${Question} sae=${sae} template=${values.template} />`}
      <${Estimate} sae=${sae} asked=${JSON.stringify(values)} spec=${() => spec(sae, query, values, lists)} />
      ${values.endpoint === "tokens" && !endpoints.length && html`<p class="help">No LLM is set up to be asked: add an endpoint in the settings.</p>`}`}
  </${Form}>`;
}

/** The spec of the job. */
async function spec(sae, query, values, lists) {
  const features = (await chosen(sae, query, { ...values, list: values.list || lists[0]?.name })) ?? { unlabeled: true };
  const told = asks(values) ? whom(values, ["template"]) : {};
  return { kind: "label", sae: sae.name, endpoint: values.endpoint, ...told, ...(values.again && { again: true }), ...features };
}

/** The very question that the LLM is asked, of the feature that is typical of what is strong. */
function Question({ sae, template }) {
  const [open, setOpen] = useState(false);
  const { found: first } = useLoaded(open ? `/api/saes/${sae.id}/features?sort=-typical&limit=1` : null);
  const index = first?.features[0]?.index;
  const { found, failed } = useLoaded(index === undefined ? null : `/api/saes/${sae.id}/features/${index}/prompt?template=${encodeURIComponent(template)}`);
  return html`<details class="question" onToggle=${(event) => setOpen(event.target.open)}><summary>See the very question</summary>
    ${failed && html`<p class="refusal">${failed}</p>`}
    ${found && html`<p class="help">As it is asked of feature ${index}:</p>
      ${found.messages.map((one, n) => html`<p class="help" key=${`role ${n}`}>${one.role}</p><pre key=${n} tabindex="0" aria-label=${`Message of the ${one.role}`}>${one.content}</pre>`)}`}
  </details>`;
}
