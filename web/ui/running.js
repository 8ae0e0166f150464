import { useState } from "preact/hooks";
import { joined, number, share } from "../lib/format.js";
import { done, stage, title } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { Bar } from "./bar.js";
import { left, meanOf, speed } from "./going.js";
import { html } from "./html.js";
import { Refusal, Verb } from "./verbs.js";

/** What is at work, how far it is, and what may be done about it. */
export function Running({ job, children }) {
  const [refused, setRefused] = useState(false);
  const [name, how] = stage(job);
  const fvu = job.kind === "train" ? meanOf(job, "fvu") : null;
  const amount = how && html`<span class="amount"> · ${how}</span>`;
  const rest = joined([fvu === null ? speed(job) : `FVU ${number(fvu)}`, left(job)]);
  const part = done(job);
  return html`<div class="at">
    <p><a href=${place(job.kind === "train" ? "training" : "jobs", [job.id])}>${title(job).join(" ")}</a> <span>${job.state === "running" ? name : `${job.state}…`}${amount}${rest && ` · ${rest}`}</span></p>
    <${Bar} share=${part} label="Progress of what runs" />
    <span class="figure">${part === null ? "" : share(part)}</span>
    <${Verb} job=${job} verb="stop" label="Stop what runs" onRefused=${() => setRefused(true)} />
    ${children}
    ${refused && html`<${Refusal} job=${job} />`}
  </div>`;
}
