import { submit } from "../api.js";
import { about, size } from "../lib/format.js";
import { freeName, saeName } from "../lib/names.js";
import { artifacts, newest } from "../state.js";
import { useAsked } from "../ui/asked.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";

const ARCHITECTURES = [
  ["batchtopk", "BatchTopK: a good first choice"],
  ["topk", "TopK"],
  ["matryoshka", "Matryoshka BatchTopK"],
  ["jumprelu", "JumpReLU"],
  ["standard", "Standard (ReLU, L1)"],
  ["gated", "Gated"],
];

/** What an SAE is trained on and how, and what that would take. */
export function NewTraining({ query, onClose }) {
  const texts = newest("tokenization").filter((one) => !query.model || one.model === query.model);
  const modelOf = (text) => artifacts.model.value.get(artifacts.tokenization.value.get(text)?.model);
  const first = texts[0]?.name ?? "";
  const hookOf = (text) => query.hook ?? usual(modelOf(text));
  const nameFor = (text, hook) => freeName(saeName(modelOf(text)?.name ?? text, hook), artifacts.sae.value);
  const renamed = (changed, values) => {
    const { tokenization, hook, named } = { ...values, ...changed };
    return named ? changed : { ...changed, name: nameFor(tokenization, hook) };
  };
  const fields = [
    { name: "tokenization", label: "Tokenization", kind: "choice", choices: texts.map((one) => [one.name, `${one.name} (${one.model})`]),
      also: (tokenization, values) => renamed({ tokenization, hook: hookOf(tokenization) }, values) },
    { name: "hook", label: "Hook", help: "where in the model the SAE reads", needed: true,
      list: modelOf(first)?.hooks ?? [], also: (hook, values) => renamed({ hook }, values) },
    { name: "architecture", label: "Architecture", kind: "choice", choices: ARCHITECTURES },
    { name: "width", label: "Width", kind: "number", min: 1, help: "latents, commonly 8 to 32 times the width of the hook" },
    { name: "k", label: "k", kind: "number", min: 1, help: "latents that fire on a token", when: ({ architecture }) => !BY_L1.has(architecture) },
    { name: "tokens", label: "Training tokens", kind: "number", min: 1, help: "more is better" },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }) },
  ];
  const start = { tokenization: first, hook: hookOf(first), architecture: "batchtopk", width: 2048, k: 32, tokens: 2_000_000,
    name: nameFor(first, hookOf(first)) };
  const send = (values) => submit(spec(values)).then(() => {});
  return html`<${Form} title="Train an SAE" verb="Train" fields=${fields} start=${start} send=${send} onClose=${onClose}>
    ${(values) => html`<${Plan} values=${values} />`}
  </${Form}>`;
}

const BY_L1 = new Set(["standard", "gated"]);

/** The residual stream after the block in the middle: what most people read first. */
function usual(model) {
  const middle = Math.max(Math.floor((model?.n_layers ?? 1) / 2), 0);
  return `blocks.${middle}.hook_resid_post`;
}

function spec({ named, k, ...values }) {
  return { kind: "train", ...values, ...(BY_L1.has(values.architecture) ? {} : { k }) };
}

/** Whether it fits, and how long it takes. */
function Plan({ values }) {
  const { found, failed } = useAsked("/api/plan", { spec: spec(values) });
  if (!found) return html`<p class="plan" aria-live="polite">${failed ?? " "}</p>`;
  const { verdict, fits, total_bytes, disk_bytes, seconds } = found;
  const parts = [`${size(total_bytes)} of memory`, `${size(disk_bytes)} of disk`, seconds && about(seconds)];
  return html`<p class="plan ${fits === false ? "refusal" : ""}" aria-live="polite">${verdict}<br />${parts.filter(Boolean).join(" · ")}</p>`;
}
