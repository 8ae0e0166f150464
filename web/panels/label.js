import { useEffect, useState } from "preact/hooks";
import { get, submit } from "../api.js";
import { count } from "../lib/format.js";
import { useAsked } from "../ui/asked.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";

const WHICH = [["unlabeled", "those without a label"], ["top", "the strongest"]];

/** Let features be labelled: by whom, which, and what that costs before it begins. */
export function LabelFeatures({ sae, onClose }) {
  const [endpoints, setEndpoints] = useState([]);
  useEffect(() => {
    get("/api/endpoints").then((found) => setEndpoints(found.endpoints), () => {});
  }, []);
  const fields = [
    { name: "endpoint", label: "Who is asked", kind: "choice",
      choices: [["tokens", "nobody: a description from the tokens, without an LLM"], ...endpoints.map((one) => [one.name, `${one.name} (${one.url})`])] },
    { name: "model", label: "Model", help: "as the endpoint calls it", when: ({ endpoint }) => endpoint !== "tokens" },
    { name: "which", label: "Which features", kind: "choice", choices: WHICH },
    { name: "top", label: "How many", kind: "number", min: 1, when: ({ which }) => which === "top" },
    { name: "max_cost", label: "US$ at most", kind: "number", min: 0, when: ({ endpoint }) => endpoint !== "tokens", help: "no limit when left empty" },
  ];
  const start = { endpoint: "tokens", which: "unlabeled", top: 100 };
  return html`<${Form} title=${`Label features of ${sae.name}`} verb="Label" fields=${fields} start=${start} onClose=${onClose}
    send=${(values) => submit(spec(sae, values))}>
    ${(values) => html`<${Estimate} sae=${sae} spec=${spec(sae, values)} />`}
  </${Form}>`;
}

function spec(sae, { which, top, model, max_cost, endpoint }) {
  const asked = endpoint === "tokens" ? {} : { model: model || null, max_cost: max_cost || null };
  return { kind: "label", sae: sae.name, endpoint, ...asked, ...(which === "top" ? { top: top || 1 } : { unlabeled: true }) };
}

/** What it would take. */
function Estimate({ sae, spec: wanted }) {
  const { found, failed } = useAsked(`/api/saes/${sae.id}/labels/estimate`, { spec: wanted });
  if (!found) return html`<p class="plan" aria-live="polite">${failed ?? " "}</p>`;
  const { features, calls, prompt_tokens, cost_usd } = found;
  const parts = [`${count(features)} features`, calls > 0 && `${count(calls)} questions`, prompt_tokens > 0 && `${count(prompt_tokens)} tokens`,
    calls > 0 && (cost_usd === null ? "what it costs is not known" : `about US$ ${cost_usd.toFixed(2)}`)];
  return html`<p class="plan" aria-live="polite">${parts.filter(Boolean).join(" · ")}</p>`;
}
