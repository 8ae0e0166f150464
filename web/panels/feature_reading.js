import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { ApiError, post, said, submit } from "../api.js";
import { isEnded, reason } from "../lib/jobs.js";
import { jobs } from "../state.js";
import { html } from "../ui/html.js";

const KEPT = 5; // texts of an SAE
const TOP = 1000; // features of a token: as many as there may be

/** Id of an SAE → the texts that were read with it, the newest first: `{text, limit, tokens, pooled, l0, left_out}` each; features denser than `limit` are not in it. */
export const texts = signal(new Map());

function keep(sae, { text, ignore_denser: limit = 1 }, found) {
  const others = (texts.value.get(sae.id) ?? []).filter((one) => one.text !== text);
  texts.value = new Map(texts.value).set(sae.id, [{ text, limit, ...found }, ...others].slice(0, KEPT));
}

/**
 * Let a text be read with an SAE: `{read, busy, failed, isBusy, queue}`. While a job has the GPU that is refused; what
 * was asked may wait for it, and is read when the GPU is free.
 */
export function useReading(sae) {
  const [state, setState] = useState(/** @type {{busy?: boolean, failed?: string, isBusy?: boolean, asked?: any, job?: number}} */ ({}));
  const waits = state.job && jobs.value.get(state.job);
  useEffect(() => {
    if (!waits || !isEnded(waits)) return;
    if (waits.state === "done") keep(sae, state.asked, waits.result);
    setState(waits.state === "done" ? {} : { failed: reason(waits) || `Job ${waits.id} was stopped.` });
  }, [waits]);
  const read = async (text, more = {}) => {
    const asked = { text, top: TOP, ...more };
    setState({ busy: true });
    try {
      keep(sae, asked, await post(`/api/saes/${sae.id}/inspect`, asked));
      setState({});
      return true;
    } catch (error) {
      setState({ failed: said(error), asked, isBusy: error instanceof ApiError && error.status === 409 });
      return false;
    }
  };
  const queue = () => submit({ kind: "inspect", sae: sae.name, ...state.asked }).then(
    ({ id }) => setState({ job: id, asked: state.asked }),
    (error) => setState({ ...state, failed: said(error) }),
  );
  return { ...state, read, queue };
}

/** Why a text was not read, and what can be done. */
export function NotRead({ reading: { failed, isBusy, job, queue } }) {
  if (job) return html`<p class="details" role="status">Job ${job} reads it when the GPU is free.</p>`;
  if (!failed) return null;
  return html`<p class="refusal" role="alert">${failed}</p>${isBusy && html`<p class="verbs"><button type="button" onClick=${queue}>Read it when the GPU is free</button></p>`}`;
}
