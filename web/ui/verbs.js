import { useState } from "preact/hooks";
import { ApiError, post } from "../api.js";
import { between } from "../lib/format.js";
import { isLive, title, verbs } from "../lib/jobs.js";
import { clock, phase, refusals, refuse } from "../state.js";
import { Sure } from "./dialog.js";
import { Act } from "./do.js";
import { html } from "./html.js";

const LITTLE_S = 30; // of work that is lost without a question

const WORDS = { retry: "Try again" };
const word = (verb) => WORDS[verb] ?? verb[0].toUpperCase() + verb.slice(1);

/** Ask something of a job; why it was not done stands with the job then. Answers whether it was. */
async function ask(job, verb) {
  try {
    await post(`/api/jobs/${job.id}/${verb}`);
    return true;
  } catch (error) {
    refuse(job.id, error instanceof ApiError ? error.message : "the studio does not answer; try again when it is back");
    return false;
  }
}

/** What can be done about a job. The page changes when the studio says that the job has, not when a button is pressed. */
export function Verbs({ job, children }) {
  return html`<div class="verbs">${children}
    ${verbs(job).map((verb) => html`<${Verb} key=${verb} job=${job} verb=${verb} label=${`${word(verb)} job ${job.id}`} />`)}</div>`;
}

/** A button for one verb; before work is lost it asks. `onRefused`: told when it was not done, which stands with the job. */
export function Verb({ job, verb, label, onRefused }) {
  const [asked, setAsked] = useState(false);
  const [doubted, setDoubted] = useState(false);
  const go = async () => {
    setDoubted(false);
    setAsked(true);
    if (await ask(job, verb)) return;
    setAsked(false);
    onRefused?.();
  };
  const press = () => (verb === "stop" && isMuch(job) ? setDoubted(true) : go());
  return html`<${Act} disabled=${phase.value !== "live" || asked} aria-label=${label} onClick=${press}>${word(verb)}</${Act}>
    ${doubted && html`<${Sure} title=${`Stop job ${job.id}, ${title(job).join(" ")}?`} verb="Stop" loses=${loses(job)} onYes=${go} onClose=${() => setDoubted(false)} />`}`;
}

/** Whether work would be lost that somebody has waited for. */
const isMuch = (job) => isLive(job) && between(job.started_at, new Date(clock.peek()).toISOString()) > LITTLE_S;

const loses = (job) =>
  job.kind === "train"
    ? "What it has learned so far is saved as an SAE, and its checkpoint is kept: “Try again” goes on from there."
    : "What it has finished stays; what it is at is lost.";

/** Why the studio did not do what was asked. */
export function Refusal({ job }) {
  const message = refusals.value.get(job.id);
  return message && html`<p class="why refusal" role="alert">${message}</p>`;
}
