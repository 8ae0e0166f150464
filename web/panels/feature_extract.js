import { submit } from "../api.js";
import { about, count } from "../lib/format.js";
import { artifacts, jobs } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";

const TOKENS = 1_000_000;

/** Find what every feature fires on: in which text, how much of it, and how long that will take. */
export function ExtractFeatures({ sae, onClose }) {
  const own = sae.tokenization?.name ?? sae.spec?.tokenization;
  const texts = [...artifacts.tokenization.value.values()].filter((one) => !sae.model || one.model === (sae.model.name ?? sae.model));
  const choices = [...(own ? [["", `that of its training (${own})`]] : []), ...texts.map((one) => [one.name, `${one.name}: ${count(one.tokens)} tokens`])];
  const fields = [
    { name: "tokenization", label: "Text", kind: "choice", choices, help: texts.length || own ? undefined : "none is here yet: tokenize a dataset with its model first" },
    { name: "tokens", label: "Tokens to read", kind: "number", min: 128, needed: true, help: "evenly spread over the text; rare features need more" },
    { name: "examples", label: "Strongest examples of each feature", kind: "number", min: 1, max: 64, folded: true, help: "24 when left empty" },
    { name: "context", label: "Tokens of an example before and after its strongest one", folded: true, placeholder: "32,32" },
    { name: "postings", label: "Keep every place where a feature fires", kind: "switch", folded: true, help: "needed to find them in the text, and to score labels" },
  ];
  return html`<${Form} title=${`Extract the features of ${sae.name}`} verb="Extract" fields=${fields} start=${{ tokenization: own ? "" : (texts[0]?.name ?? ""), tokens: TOKENS, postings: true }}
    onClose=${onClose} send=${(values) => submit({ kind: "extract", sae: sae.name, ...values })}>
    ${(values) => html`<p class="plan" role="status">${takes(sae, values.tokens)}</p>
      <p class="help">Labels, marks and lists stay; examples and numbers are found anew.</p>`}
  </${Form}>`;
}

/** How long it will take, by how fast the last extraction on this machine went. */
function takes(sae, tokens) {
  const done = [...jobs.value.values()].filter((job) => job.kind === "extract" && job.state === "done" && job.result?.tokens_per_s > 0);
  const newest = (some) => some.sort((a, b) => b.id - a.id)[0];
  const like = newest(done.filter((job) => job.spec.sae === sae.name)) ?? newest(done);
  if (!like) return "How long it takes is not known: nothing was extracted here yet.";
  return `${about((tokens || TOKENS) / like.result.tokens_per_s)}, as fast as the last one went (${count(like.result.tokens_per_s)} tokens a second)`;
}
