import { useRef } from "preact/hooks";
import { post, submit } from "../api.js";
import { isEnded } from "../lib/jobs.js";
import { freeName, modelName } from "../lib/names.js";
import { hubModel, publishedName } from "../lib/published.js";
import { artifacts, jobs, newest } from "../state.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Published, placeOf } from "./sae_published.js";
import { SendFiles } from "./sae_send.js";

const HUB = /^[\w-][\w.-]*\/[\w-][\w.-]*(:.*)?$/;
const isPickle = ({ source = "", chosen = [] }) => /\.(pt|pth)$/.test(source) || chosen.some(({ pickle }) => pickle);

const nameOf = (source) => {
  const [place, path] = placeOf(source);
  return publishedName(place, path, artifacts.sae.value);
};

/** Bring in SAEs that somebody has published; what is at a source is shown before any of it is fetched. */
export function AddSae({ onClose }) {
  const sent = useRef(new Set()); // names that are queued already, where a later one was refused
  const taken = useRef(false); // what was sent, by a job that reads it
  const model = useRef(/** @type {{source?: string, job?: number}} */ ({})); // that is queued before them, where an SAE was refused then
  const also = (source, values) => ({ source, called: null, chosen: [], needs: null, ...(values.named ? {} : { name: source ? nameOf(source) : "" }) });
  const fields = [
    { name: "source", label: "Where it comes from", placeholder: "google/gemma-scope-2b-pt-res", needed: true, also,
      help: "owner/name of a repository of the Hub, with :path for one of several in it; a folder or file of the studio's machine" },
    { name: "name", label: "What to call it", needed: true, also: (name) => ({ name, named: true }), when: ({ chosen = [] }) => chosen.length < 2 },
    { name: "allow_pickle", label: "It is a pickle: convert it", kind: "switch", when: isPickle, help: "in a process of its own, and what it holds is never executed" },
    { name: "model", label: "Model that it reads", kind: "choice", folded: true, choices: [["", "as its files say"], ...newest("model").map(({ name }) => [name, name])] },
    { name: "hook", label: "Hook", folded: true, help: "where its files do not say it, as blocks.12.hook_resid_post" },
    { name: "revision", label: "Branch, tag or commit", folded: true, help: "main when left empty", also: (revision) => ({ revision, chosen: [] }), when: ({ source = "" }) => HUB.test(source) },
  ];
  const send = async ({ source, name, chosen = [], named: _, called: __, needs, ...given }) => {
    const specs = chosen.length ? chosen.map((one) => ({ source: at(source, one.path), name: chosen.length > 1 ? one.name : name })) : [{ source, name }];
    const left = specs.filter((spec) => !sent.current.has(spec.name));
    const wanted = needs && !given.model ? hubModel(needs) : null;
    const lost = isLost(jobs.value.get(model.current.job)); // behind which nothing can wait
    if (wanted && (lost || model.current.source !== wanted)) model.current = { source: wanted, job: await modelJob(wanted) };
    const after = wanted ? [model.current.job] : [];
    for (const spec of left) {
      await post("/api/jobs", { spec: { kind: "add_sae", ...given, ...spec }, after });
      sent.current.add(spec.name);
      taken.current = true;
    }
  };
  return html`<${Form} title="Add an SAE" verb="Add" fields=${fields} send=${send} onClose=${onClose}>
    ${(values, set) => html`<${SendFiles} taken=${taken} onSent=${(source, called) => set({ source, called, chosen: [], needs: null, ...(values.named ? {} : { name: called && publishedName(called, "", artifacts.sae.value) }) })} />
      <${Published} values=${values} set=${set} />`}
  </${Form}>`;
}

const isLost = (job) => job && isEnded(job) && job.state !== "done";
const at = (source, path) => [placeOf(source)[0], path].filter(Boolean).join(":");

/** The job that adds the model which SAEs need: one that is queued already, else a new one. */
async function modelJob(source) {
  const queued = [...jobs.value.values()].find((job) => job.kind === "add_model" && job.spec.source === source && !isEnded(job));
  const job = queued ?? await submit({ kind: "add_model", source, name: freeName(modelName(source), artifacts.model.value) });
  return job.id;
}
