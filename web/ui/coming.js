import { isLive } from "../lib/jobs.js";
import { html } from "./html.js";
import { EndedJob, LiveJob, WaitingJob } from "./job.js";

/** Jobs that bring something: at work, to come, and those that have failed, until they are dismissed. */
export function Coming({ label, going, failed, dismiss }) {
  return html`<section class="arriving" aria-label=${label}>
    ${going.filter(isLive).map((job) => html`<${LiveJob} job=${job} key=${job.id} />`)}
    <ul class="rows">
      ${going.filter((job) => !isLive(job)).map((job) => html`<${WaitingJob} job=${job} key=${job.id} />`)}
      ${failed.map((job) => html`<${EndedJob} job=${job} key=${job.id} />
        <li class="dismiss"><button class="quiet" aria-label=${`Dismiss job ${job.id}`} onClick=${() => dismiss(job)}>Dismiss</button></li>`)}
    </ul>
  </section>`;
}
