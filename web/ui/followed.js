import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { isEnded, isLive } from "../lib/jobs.js";
import { jobs } from "../state.js";
import { html } from "./html.js";
import { LiveJob, WaitingJob } from "./job.js";

/** A job as it goes, with its result when it has one; null for no id, and until it is known. */
export function useJob(id) {
  const known = id === null ? undefined : jobs.value.get(id);
  const [asked, setAsked] = useState(null);
  useEffect(() => {
    if (id !== null && !known) get(`/api/jobs/${id}`).then(setAsked, () => {});
  }, [id, !known]);
  return known ?? (asked?.id === id ? asked : null);
}

/** A job that has not ended, within a dialog: what it does, and how far it is. */
export function Following({ job, children }) {
  if (!job || isEnded(job)) return null;
  return html`<div class="following" role="status"><p>${children}</p></div>
    ${isLive(job) ? html`<${LiveJob} job=${job} />` : html`<ul class="rows waiting"><${WaitingJob} job=${job} /></ul>`}`;
}
