import { useRef, useState } from "preact/hooks";
import { post, put, said } from "../api.js";
import { sayer } from "../lib/feature_words.js";
import { ago, count, number, share } from "../lib/format.js";
import { slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Act } from "../ui/do.js";
import { focusFirst, useFocusBack } from "../ui/focus.js";
import { html } from "../ui/html.js";
import { Term } from "../ui/term.js";

/** What it is called, by whom, and what that is worth; changed in place. `changed`: something was. */
export function Called({ sae, feature, changed }) {
  const { label, score, index } = feature;
  const [edited, setEdited] = useState(null);
  const [failed, setFailed] = useState(null);
  const at = `/api/saes/${sae.id}/features/${index}`;
  const { found, again } = useLoaded(`${at}/labels`, `${label?.id} ${label?.status} ${score?.value}`);
  const change = useFocusBack(edited !== null);
  const busy = useRef(false);
  const done = async (ask) => {
    if (busy.current) return;
    busy.current = true;
    try {
      await ask();
      setFailed(null);
      changed();
      again();
    } catch (error) {
      setFailed(said(error));
    } finally {
      busy.current = false;
    }
  };
  const keep = (event) => {
    event.preventDefault();
    done(() => put(`${at}/label`, { text: edited.text, explanation: edited.explanation || null }).then(() => setEdited(null)));
  };
  const current = found?.labels.find((one) => one.current);
  return html`<section class="card" aria-labelledby="called">
    <h3 id="called">Label</h3>
    ${edited
      ? html`<${Edit} edited=${edited} set=${setEdited} keep=${keep} />`
      : html`<p class=${label ? "label" : "label faint"}>${label?.text ?? "No label yet"}</p>
        ${label?.explanation && html`<p class="explanation">${label.explanation}</p>`}
        ${label && html`<p class="details">${provenance(label)}</p>`}
        <p class="verbs"><button ref=${change} onClick=${() => setEdited({ text: label?.text ?? "", explanation: label?.explanation ?? "" })}>${label ? "Change" : "Write one"}</button>
          ${label && label.provider !== "person" && label.status === "proposed" && html`
            <button aria-label="Accept this label" onClick=${() => done(() => post(`/api/saes/${sae.id}/labels/${label.id}/accept`))}>Accept</button>
            <button aria-label="Reject this label" onClick=${() => done(() => post(`/api/saes/${sae.id}/labels/${label.id}/reject`))}>Reject</button>`}</p>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${!label && found?.failure && html`<p class="details">The last try gave none ${ago(found.failure.at, slowClock.value)}: ${found.failure.reason}</p>`}
    ${current && html`<${Scores} scores=${current.scores} />`}
    <${Earlier} sae=${sae} labels=${(found?.labels ?? []).filter((one) => !one.current)} done=${done} />
  </section>`;
}

function Edit({ edited, set, keep }) {
  const typed = (name) => ({ target }) => set({ ...edited, [name]: target.value });
  const keys = (event) => event.key === "Escape" && set(null);
  return html`<form onSubmit=${keep} onKeyDown=${keys}>
    <label class="field">Label <input maxlength="200" required ref=${focusFirst} value=${edited.text} onInput=${typed("text")} /></label>
    <label class="field">Explanation <textarea rows="3" maxlength="2000" value=${edited.explanation} onInput=${typed("explanation")}></textarea></label>
    <p class="verbs"><${Act} type="submit" class="first">Keep</${Act}><button type="button" onClick=${() => set(null)}>Cancel</button></p></form>`;
}

/** Who said it, when, by which prompt, how sure, and what a person thinks of it. */
function provenance(label) {
  const { provider, template, confidence, created_at, status, evidence } = label;
  return [
    `by ${sayer(label)}`, ago(created_at, slowClock.value),
    provider !== "person" && provider !== "tokens" && template && `prompt ${template}`,
    provider !== "person" && confidence !== null && `confidence ${share(confidence)}`,
    evidence?.windows && `from ${count(evidence.windows.length)} texts`,
    provider !== "person" && status,
  ].filter(Boolean).join(" · ");
}

/** What the label is worth by each method, with its interval and how the judgements fell. */
function Scores({ scores }) {
  if (!scores.length) return html`<p class="details">Not scored yet: whether it tells where the feature fires is not known.</p>`;
  const interval = (value, low, high) => `${number(value, 2)}${low === null ? "" : ` (${number(low, 2)} to ${number(high, 2)})`}`;
  return html`<table class="plain-table" aria-label="Scores"><thead><tr><th scope="col"><${Term} of="score">Score by</${Term}></th><th scope="col"><${Term} of="Balanced accuracy" /></th><th scope="col"><${Term} of="AUROC" /></th><th scope="col">Right</th></tr></thead>
    <tbody>${scores.map((one) => html`<tr key=${one.id}><th scope="row"><${Term} of=${one.method} />${one.judge && html` <span class="details">${one.judge}</span>`}</th>
      <td>${interval(one.balanced_accuracy, one.low, one.high)}</td><td>${interval(one.auroc, one.auroc_low, one.auroc_high)}</td>
      <td title=${`fires: ${one.tp} right, ${one.fn} missed; does not fire: ${one.tn} right, ${one.fp} taken for firing; ${one.failed} not judged`}>${one.tp + one.tn} of ${one.tp + one.tn + one.fp + one.fn}</td></tr>`)}</tbody></table>`;
}

/** Labels that it had or was offered, each of which can be taken instead. */
function Earlier({ sae, labels, done }) {
  if (!labels.length) return null;
  return html`<details><summary>${labels.length === 1 ? "Another label" : `${labels.length} other labels`}</summary><ul class="earlier">${labels.map((one) => html`<li key=${one.id}>
    <p>${one.text}</p><p class="details">${provenance(one)}${one.scores[0] ? ` · ${one.scores[0].method} ${number(one.scores[0].balanced_accuracy, 2)}` : ""}</p>
    <p class="verbs"><button aria-label=${`Take instead: ${one.text}`} onClick=${() => done(() => post(`/api/saes/${sae.id}/labels/${one.id}/accept`))}>Take instead</button>
      ${one.status !== "rejected" && html`<button aria-label=${`Reject: ${one.text}`} onClick=${() => done(() => post(`/api/saes/${sae.id}/labels/${one.id}/reject`))}>Reject</button>`}</p></li>`)}</ul></details>`;
}
