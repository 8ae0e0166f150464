import { about, number, share } from "../lib/format.js";
import { done, stage, title } from "../lib/jobs.js";
import { mean } from "../lib/measures.js";
import { place } from "../lib/route.js";
import { groups, metrics } from "../state.js";
import { Bar } from "./bar.js";
import { html } from "./html.js";

/** What is at work, how far it is, and how many wait: at the foot of every panel. */
export function JobBar() {
  const { live, waiting } = groups.value;
  const job = live.find(({ lane }) => lane === "gpu") ?? live[0];
  const others = live.length + waiting.length - (job ? 1 : 0);
  const more = html`<a href=${place("jobs")}>${others ? `and ${others} more` : "All jobs"}</a>`;
  if (!job) return html`<footer class="jobbar"><p>Nothing runs, and the GPU is free.</p>${more}</footer>`;
  const fvu = job.kind === "train" ? mean(metrics.value.get(job.id), "fvu") : null;
  const [name] = stage(job);
  const { eta_s } = job.progress ?? {};
  const way = [name, done(job) !== null && share(done(job)), fvu !== null && `FVU ${number(fvu)}`, eta_s && `${about(eta_s)} left`];
  return html`<footer class="jobbar">
    <p><b>${title(job).join(" ")}</b> <span>${way.filter(Boolean).join(" · ")}</span></p>
    <${Bar} share=${done(job)} label="Progress of what runs" />
    ${more}
  </footer>`;
}
