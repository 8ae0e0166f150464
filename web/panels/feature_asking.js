import { useEffect, useState } from "preact/hooks";
import { ApiError, get, post, said } from "../api.js";
import { count } from "../lib/format.js";
import { listed } from "../lib/feature_words.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";

// What the forms for labels and for scores have in common: whom to ask, about which features, and what that takes.

export const MOST = 10_000; // features that a job can be given by number
const PAGE = 1000;
const TYPED_MS = 300; // after the last key

/** Fields for whom to ask, of the `models` that are known, and how much of it; shown only where `asks` (values) says that somebody is asked. */
export function asking(endpoints, asks, models) {
  const chosen = ({ endpoint }) => endpoints.find((one) => one.name === endpoint);
  return [
    { name: "model", label: "Model", needed: true, when: asks, list: models, help: "as the endpoint calls it" },
    { name: "max_cost", label: "US$ at most", kind: "number", min: 0, when: asks, help: "no limit when left empty; it needs the two prices, or an endpoint that says what it costs" },
    { name: "price_in", label: "US$ for a million tokens of questions", kind: "number", min: 0, when: asks, folded: true },
    { name: "price_out", label: "US$ for a million tokens of answers", kind: "number", min: 0, when: asks, folded: true },
    { name: "max_tokens", label: "Tokens at most", kind: "number", min: 1, when: asks, folded: true },
    { name: "concurrency", label: "Questions at once", kind: "number", min: 1, max: 64, when: asks, folded: true },
    { name: "timeout_s", label: "Seconds that an answer may take", kind: "number", min: 1, max: 3600, when: asks, folded: true },
    { name: "share_gpu", label: "Let it work beside a job on this machine's GPU", kind: "switch", folded: true,
      when: (values) => asks(values) && chosen(values)?.on_this_machine === true },
  ];
}

const ASKED = ["model", "max_cost", "price_in", "price_out", "max_tokens", "concurrency", "timeout_s", "share_gpu"];

/** Only those values of a form. */
export const only = (values, names) => Object.fromEntries(names.filter((name) => values[name] !== undefined && values[name] !== "").map((name) => [name, values[name]]));

export const useEndpoints = () => useLoaded("/api/endpoints").found?.endpoints ?? [];

/** Fields for which features: those of a list, those that the panel shows, or so many. */
export function which(query, lists, total, others) {
  const narrowed = query.q || query.filter;
  const choices = [...others, ["top", "the strongest"], lists.length && ["list", "those of a list"], narrowed && ["shown", `those that are shown (${count(total)})`], ["numbers", "by number"]];
  return [
    { name: "which", label: "Which features", kind: "choice", choices: choices.filter(Boolean) },
    { name: "top", label: "How many", kind: "number", min: 1, needed: true, when: (values) => values.which === "top" },
    { name: "list", label: "List", kind: "choice", choices: lists.map((one) => [one.name, `${one.name} (${count(one.features)})`]), when: (values) => values.which === "list" },
    { name: "features", label: "Numbers", kind: "numbers", needed: true, when: (values) => values.which === "numbers", help: "with commas between" },
  ];
}

export const useLists = (sae) => useLoaded(`/api/saes/${sae.id}/lists`).found?.lists ?? [];

/** The part of a spec that says whom to ask. Throws a sentence before a model is named. */
export function whom(values, more = []) {
  if (!values.model) throw new ApiError(0, "Name the model; then it is said here what it takes.", { model: "which model is to be asked?" });
  return only(values, [...ASKED, ...more]);
}

/** What a spec says of them, once the numbers have come. Throws a sentence, as get() does. */
export async function chosen(sae, query, { which: way, top, list, features }) {
  if (way === "top") return { top: top || 1 };
  if (way === "numbers") return { features: features ?? [] };
  if (way === "list") return { features: await every(sae, { filter: `list:${JSON.stringify(list)}` }) };
  if (way === "shown") return { features: await every(sae, query) };
  return null;
}

/** Numbers of the features that a list shows, in its order. */
async function every(sae, query) {
  const found = [];
  for (let next = "0"; next !== null && found.length <= MOST; ) {
    const page = await get(`/api/saes/${sae.id}/features?${listed(query)}&limit=${PAGE}&cursor=${next}`);
    found.push(...page.features.map((one) => one.index));
    next = page.next;
  }
  if (!found.length) throw new ApiError(0, "no feature is so");
  if (found.length > MOST) throw new ApiError(0, `these are more than ${count(MOST)} features, which is the most that can be chosen: filter further, or take the strongest`);
  return found;
}

/** 0.004 is not nothing. */
function price(usd) {
  if (usd === null) return "what it costs is not known";
  if (usd === 0) return "it costs nothing";
  return usd < 0.01 ? "less than US$ 0.01" : `about US$ ${usd.toFixed(2)}`;
}

/** What it would take. `spec`: a promise of the spec, made a moment after `asked` (a text) has changed. */
export function Estimate({ sae, asked, spec }) {
  const [{ found, failed: why }, setMade] = useState(/** @type {import("../ui/asked.js").Answer} */ ({}));
  useEffect(() => {
    let wanted = true;
    const tell = (one) => wanted && setMade(one);
    const ask = async () => post(`/api/saes/${sae.id}/labels/estimate`, { spec: await spec() });
    const timer = setTimeout(() => ask().then((found) => tell({ found }), (error) => tell({ failed: said(error) })), TYPED_MS);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [asked]);
  if (why) return html`<p class="plan" role="status" aria-label="What it takes">${why}</p>`;
  if (!found) return html`<p class="plan" role="status" aria-label="What it takes"> </p>`;
  const { features, calls, prompt_tokens, answer_tokens, cost_usd, lane } = found;
  const parts = [`${count(features)} features to do`, calls > 0 && `${count(calls)} questions`, calls > 0 && `about ${count(prompt_tokens + answer_tokens)} tokens`,
    calls > 0 && price(cost_usd),
    calls > 0 && lane === "gpu" && "it uses this machine's GPU, so it waits until no other job does"];
  return html`<p class="plan" role="status" aria-label="What it takes">${parts.filter(Boolean).join(" · ")}</p>`;
}
