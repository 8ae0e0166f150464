import { submit } from "../api.js";
import { modelOf, timeFor } from "../lib/saes.js";
import { go } from "../route.js";
import { artifacts, jobs, newest } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";

const TOKENS = 65_536;

/** What is measured of several SAEs beside each other, and on which text. */
export function CompareSaes({ saes, onClose }) {
  const first = artifacts.sae.value.get(saes[0]?.split("@")[0]);
  const texts = newest("tokenization").filter((one) => !first || one.model === modelOf(first));
  const others = saes.length === 1 ? newest("sae").filter((one) => one.name !== saes[0] && modelOf(one) === modelOf(first ?? {})) : [];
  const fields = [
    others.length
      ? { name: "other", label: "With", kind: "choice", needed: true, choices: [["", "choose an SAE"], ...others.map(({ name, hook }) => [name, `${name} · ${hook ?? "—"}`])] }
      : { name: "saes", label: "SAEs", kind: "words", needed: true, help: "two to eight of one model, with commas between; NAME@STEP is one as it was at a checkpoint" },
    { name: "tokens", label: "Held-out tokens at most", kind: "number", min: 4096, help: "more makes the intervals narrower" },
    textField(texts, "the first one's"),
  ];
  const send = ({ other, ...values }) => submit({ kind: "compare", ...values, ...(other ? { saes: [...saes, other] } : {}) }).then((job) => go("saes", ["compare", job.id]));
  return html`<${Form} title="Compare SAEs" verb="Compare" fields=${fields} start=${{ saes, tokens: TOKENS }} send=${send} onClose=${onClose}>
    ${({ tokens }) => html`<${Time} kind="compare" tokens=${tokens} />`}</${Form}>`;
}

/** On which text it is measured. `whose`: training, when nobody says. */
export const textField = (texts, whose = "its") => ({
  name: "tokenization", label: "Text", kind: "choice", folded: true,
  choices: [["", `that of ${whose} training, else the newest of its model`], ...texts.map(({ name }) => [name, name])],
});

/** An idea of how long a job of a kind takes. */
export function Time({ kind, tokens }) {
  const found = timeFor(kind, tokens, [...jobs.value.values()]);
  return html`<p class="plan">${found ? `It takes ${found.words}.` : "How long it takes is not known before the first."} Nothing of the SAE changes.</p>`;
}
