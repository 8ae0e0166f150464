import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../api.js";
import { count, known, number, size } from "../lib/format.js";
import { place } from "../lib/route.js";
import { certified, deadOf, evaluated, labelled, latest, little, modelOf, sourceOf } from "../lib/saes.js";
import { jobs } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Mark } from "../ui/mark.js";
import { Table } from "../ui/table.js";
import { DeleteSae } from "./sae_delete.js";

const CHANGES = new Set(["add_sae", "train", "extract", "label", "export"]); // kinds of jobs after which rows say other things

/** SAEs as rows, each with what it is worth. `choose`: told the name of one and whether it is to be compared. */
export function Rows({ saes, chosen, choose }) {
  const sizes = useSizes();
  const [going, setGoing] = useState(null); // the one that is asked about before it is deleted
  const pick = ["", "pick", (sae) => html`<input type="checkbox" aria-label=${`Choose ${sae.name}`} checked=${chosen.includes(sae.name)}
    onChange=${(event) => choose(sae.name, event.target.checked)} />`];
  const columns = [
    ["Name", "name", (sae) => html`<a href=${place("saes", [sae.name])}>${sae.name}</a><${Tags} tags=${sae.tags} />`],
    ["Reads", "text reads", (sae) => html`${modelOf(sae) ?? "—"} <code>${sae.hook ?? "—"}</code>`],
    ["Width", "figure", (sae) => html`${count(sae.width)}${known(sae.k) && html` <span class="details">k ${count(sae.k)}</span>`}`],
    ["L0", "figure", (sae) => number(latest(sae, "l0"), 1)],
    ["FVU", "figure", (sae) => number(latest(sae, "fvu"))],
    ["ΔCE", "figure", (sae) => number(latest(sae, "ce_delta"))],
    ["Dead", "figure", (sae) => little(deadOf(sae))],
    ["Checked", "text checks", (sae) => html`<${Standing} of=${certified(sae)} /> <${Standing} of=${EVALUATED[evaluated(sae)]} />`],
    ["Features", "text features-of", (sae) => html`<${Features} sae=${sae} />`],
    ["From", "text from", (sae) => html`${sourceOf(sae)} <span class="details">${size(sizes[sae.name])}</span>`],
    ["", "verbs", (sae) => html`<button class="quiet" aria-label=${`Delete the SAE ${sae.name}`} onClick=${() => setGoing(sae)}>Delete</button>`],
  ];
  return html`<div class="saes"><${Table} label="SAEs" columns=${choose ? [pick, ...columns] : columns} rows=${saes} />
    ${going && html`<${DeleteSae} sae=${going} onClose=${() => setGoing(null)} />`}</div>`;
}

const EVALUATED = {
  there: { word: "evaluated", shape: "done", means: "Measured on held-out text, each figure with its interval." },
  outdated: { word: "evaluation outdated", shape: "partial", means: "Its files were changed after it was evaluated." },
  none: { word: "not evaluated", shape: "queued", means: "Its figures are those of its training or of its maker, without intervals." },
};

/** A word with its shape; what it means is in its title. */
export function Standing({ of: { word, shape, means } }) {
  return html`<span class="standing" title=${means}><${Mark} state=${shape} /> ${word}</span>`;
}

export function Tags({ tags }) {
  return tags?.length > 0 && html`<span class="tags">${tags.map((tag) => html` <span class="tag" key=${tag}>${tag}</span>`)}</span>`;
}

/** How far its features are known, which is asked for when it comes into sight. */
function Features({ sae }) {
  const [isSeen, at] = useSeen();
  const { found: of } = useLoaded(isSeen ? `/api/saes/${sae.id}/dependents` : null, ended());
  return html`<span ref=${at}>${of?.extractions ? html`<a href=${place("features", [sae.name])}>${labelled(of, sae.width)}</a>` : labelled(of)}</span>`;
}

/** How many jobs that change what rows say have come to their end. */
const ended = () => [...jobs.value.values()].filter((job) => CHANGES.has(job.kind) && job.ended_at).length;

/** Name → bytes of its own folder; empty until they are added up. */
function useSizes() {
  const [sizes, setSizes] = useState({});
  useEffect(() => {
    get("/api/disk").then(({ saes }) => setSizes(Object.fromEntries(saes.map((one) => [one.name, one.weights]))), () => {});
  }, [ended()]);
  return sizes;
}

/** Whether an element has been in sight, and the ref that it takes. */
function useSeen() {
  const [isSeen, setSeen] = useState(false);
  const at = useRef(null);
  useEffect(() => {
    const watch = new IntersectionObserver((found) => found.some((one) => one.isIntersecting) && setSeen(true));
    watch.observe(at.current);
    return () => watch.disconnect();
  }, []);
  return /** @type {const} */ ([isSeen, at]);
}
