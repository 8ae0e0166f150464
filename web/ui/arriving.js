import { signal } from "@preact/signals";
import { UNFINISHED } from "../lib/jobs.js";
import { artifacts, jobs } from "../state.js";
import { html } from "./html.js";
import { Later } from "./later.js";

const Coming = (props) => html`<${Later} from=${() => import("./coming.js").then((found) => found.Coming)} ...${props} />`;

const dismissed = signal(new Set()); // jobs of which a person has read why they failed

/** The jobs of a kind whose artifact is not there: what is on its way, and what has failed and was not tried again. */
export function Arriving({ kind, noun, label }) {
  const all = [...jobs.value.values()].filter((job) => job.kind === kind).sort((a, b) => b.id - a.id);
  const newest = all.filter((job, at) => all.findIndex((other) => other.spec.name === job.spec.name) === at);
  const missing = (job) => !artifacts[noun].value.has(job.spec.name);
  const going = newest.filter((job) => UNFINISHED.includes(job.state));
  const failed = newest.filter((job) => job.state === "failed" && missing(job) && !dismissed.value.has(job.id));
  if (going.length + failed.length === 0) return null;
  const dismiss = (job) => (dismissed.value = new Set(dismissed.value).add(job.id));
  return html`<${Coming} label=${label} going=${going} failed=${failed} dismiss=${dismiss} />`;
}
