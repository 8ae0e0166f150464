import { useState } from "preact/hooks";
import { ApiError, submit } from "../api.js";
import { ListModels, useLabelDefaults } from "../ui/endpoint.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Estimate, asking, chosen, only, useEndpoints, useLists, which, whom } from "./feature_asking.js";

const METHODS = [
  ["tokens", "By the tokens in the label, without an LLM"],
  ["detection", "Detection: a judge says in which texts the feature fires"],
  ["fuzzing", "Fuzzing: a judge says whether the right tokens are marked"],
];
const asks = ({ detection, fuzzing }) => detection === true || fuzzing === true;

/** Find out what labels are worth: by which methods, who judges, and what that costs before it begins. */
export function ScoreLabels({ sae, query, found, onClose }) {
  const [endpoints, lists] = [useEndpoints(), useLists(sae)];
  const [models, setModels] = useState([]);
  const defaults = useLabelDefaults();
  const [model, ...limits] = asking(endpoints, asks, models);
  const fields = [
    ...METHODS.map(([name, label]) => ({ name, label, kind: "switch" })),
    { name: "endpoint", label: "Who judges", kind: "choice", choices: [["", "choose an endpoint"], ...endpoints.map((one) => [one.name, `${one.name} (${one.url})`])], when: asks, needed: true },
    model,
    ...which(query, lists, found.total, [["all", "all that have a label"]]),
    ...limits,
    { name: "examples", label: "Texts in which it fires, and as many in which not", kind: "number", min: 2, max: 200, folded: true, help: "20 when left empty" },
    { name: "again", label: "Also those that have one already", kind: "switch", folded: true },
  ];
  if (!defaults) return null; // for a moment: the form begins with them
  const whoever = defaults.endpoint === "tokens" ? {} : defaults; // tokens judge nothing
  const start = { ...whoever, tokens: true, which: "all", top: 100, list: lists[0]?.name ?? "" };
  return html`<${Form} title=${`Score labels of ${sae.name}`} verb="Score" fields=${fields} start=${start} onClose=${onClose}
    send=${async (values) => submit(await spec(sae, query, values, lists))}>
    ${(values) => html`
      ${asks(values) && values.endpoint && html`<${ListModels} key=${values.endpoint} name=${values.endpoint} found=${setModels} />`}
      ${asks(values) && !endpoints.length && html`<p class="help">No LLM is set up to judge: add an endpoint in the settings.</p>`}
      <${Estimate} sae=${sae} asked=${JSON.stringify(values)} spec=${() => spec(sae, query, values, lists)} />`}
  </${Form}>`;
}

/** The spec of the job. Throws a sentence where no method is chosen. */
async function spec(sae, query, values, lists) {
  const methods = METHODS.map(([name]) => name).filter((name) => values[name] === true);
  if (!methods.length) throw new ApiError(0, "choose at least one method");
  const features = (await chosen(sae, query, { ...values, list: values.list || lists[0]?.name })) ?? {};
  return { kind: "score", sae: sae.name, methods, ...(asks(values) ? whom(values, ["endpoint"]) : {}), ...only(values, ["examples"]), ...(values.again && { again: true }), ...features };
}
