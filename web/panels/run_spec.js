import { useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { count } from "../lib/format.js";
import { isEnded } from "../lib/jobs.js";
import { freeName } from "../lib/names.js";
import { place } from "../lib/route.js";
import { commandOf } from "../lib/training_spec.js";
import { artifacts, jobs } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Command } from "../ui/command.js";
import { Copy } from "../ui/copy.js";
import { html } from "../ui/html.js";

/** Names that a training cannot have: of SAEs that are there or in the making, and what those of a grid begin with. */
export function takenNames() {
  const trainings = [...jobs.value.values()].filter((job) => job.kind === "train");
  const coming = trainings.filter((job) => !isEnded(job)).flatMap((job) => job.makes?.names ?? []);
  return new Set([...artifacts.sae.value.keys(), ...coming, ...trainings.filter((job) => job.state !== "failed").map((job) => job.spec.name)]);
}

/** The exact spec, to be read, copied, and asked for again. */
export function Asked({ job }) {
  const [told, setTold] = useState(/** @type {import("preact").ComponentChildren} */ (""));
  const [busy, setBusy] = useState(false);
  const { found } = useLoaded("/api/specs/train");
  const again = async () => {
    const name = freeName(job.spec.name, takenNames());
    setBusy(true);
    try {
      const made = await submit({ ...job.spec, name });
      setTold(html`<a href=${place("training", [made.id])}>Job ${made.id}</a> does the same, as ${name}.`);
    } catch (error) {
      setTold(said(error));
    }
    setBusy(false);
  };
  const given = Object.entries(job.spec).filter(([name, value]) => value !== null && name !== "kind");
  return html`<section aria-labelledby="asked"><h3 id="asked">What was asked</h3>
    <dl class="facts card">${given.map(([name, value]) => html`<div key=${name} title=${found?.fields[name]?.description}><dt>${name}</dt><dd>${shown(value)}</dd></div>`)}</dl>
    ${found && html`<${Command} line=${commandOf(job.spec, found.fields)} />`}
    <details><summary>As JSON</summary><pre tabindex="0">${JSON.stringify(job.spec, null, 2)}</pre><${Copy} text=${JSON.stringify(job.spec, null, 2)} what="the spec as JSON" /></details>
    <p class="verbs"><button disabled=${busy} onClick=${again}>Run again</button>
      <${Extend} job=${job} /> <span role="status">${told}</span></p>
  </section>`;
}

const one = (value) => (typeof value === "number" ? (Number.isInteger(value) ? count(value) : String(value)) : value === true ? "yes" : value === false ? "no" : value);
const shown = (value) => [value].flat().map(one).join(", ");

/** An SAE that is done can be trained on, as another SAE. */
function Extend({ job }) {
  const [name] = job.makes?.names ?? [];
  if (job.state !== "done" || job.makes?.names.length !== 1 || !artifacts.sae.value.has(name)) return null;
  return html`<a class="button" href=${place("training", ["new"], { extends: name })}>Train it further</a>`;
}
