import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { joined, share } from "../lib/format.js";
import { done, isEnded, isLive, stage, wait } from "../lib/jobs.js";
import { jobs } from "../state.js";
import { Bar } from "./bar.js";
import { left } from "./going.js";
import { html } from "./html.js";

/** A job as it goes, with its result when it has one; null for no id, and until it is known. */
export function useJob(id) {
  const known = id === null ? undefined : jobs.value.get(id);
  const [asked, setAsked] = useState(null);
  useEffect(() => {
    if (id !== null && !known) get(`/api/jobs/${id}`).then(setAsked, () => {});
  }, [id, !known]);
  return known ?? (asked?.id === id ? asked : null);
}

/** A job that has not ended, within a dialog: what it does, and how far it is. What can be done about it stands on the page. */
export function Following({ job, children }) {
  if (!job || isEnded(job)) return null;
  const part = done(job);
  const [name, how] = stage(job);
  return html`<div class="following"><p role="status">${children}</p>
    ${isLive(job) && html`<${Bar} share=${part} label=${`Progress of job ${job.id}`} />`}
    <p class="details">${isLive(job) ? joined([name, how, part === null ? "" : share(part), left(job)]) : wait(job, jobs.value)}</p></div>`;
}
