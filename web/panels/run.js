import { computed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { isEnded, isLive } from "../lib/jobs.js";
import { place } from "../lib/route.js";
import { useRuns } from "../runs.js";
import { connections, jobs, slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { RunCharts } from "./run_charts.js";
import { Made } from "./run_made.js";
import { Checkpoints, Learning, Said } from "./run_parts.js";
import { Asked } from "./run_spec.js";
import { RunState } from "./run_state.js";

/** Ids of trainings in an address: "9,7" → [9, 7] */
const idsOf = (text = "") => [...new Set(String(text).split(",").map(Number).filter((id) => Number.isInteger(id) && id > 0))];

/** The job as the page knows it, drawn anew when it changes, but not for each bit of progress. */
function useJob(id) {
  const changes = useMemo(() => computed(() => JSON.stringify({ ...jobs.value.get(id), progress: null })), [id]);
  changes.value; // read, so that the caller is drawn anew
  return jobs.peek().get(id);
}

/** One training, others over it: how it goes, what it was asked, what came of it, what it says of itself. */
export function Run({ id, query }) {
  const others = idsOf(query.with).filter((one) => one !== id);
  const { runs, at } = useRuns([id, ...others]);
  const known = useJob(id);
  const asked = useLoaded(known ? null : `/api/jobs/${id}`, connections.value); // the page keeps the newest only
  const job = known ?? asked.found;
  // A training makes them as it goes, and the studio tells of none.
  const kept = useLoaded(job?.kind === "train" ? `/api/jobs/${id}/checkpoints` : null, isLive(job ?? {}) ? slowClock.value : job?.state).found?.checkpoints;
  const way = html`<a href=${place("training")}>All trainings</a>
    ${job && html`<a class="button" href=${place("training", ["new"], { from: id })}>The same again with changes</a>`}`;
  if (job?.kind !== "train") {
    const why = job ? `Job ${id} is no training.` : asked.failed ?? "Asking the studio for it.";
    return html`<${Panel} title=${`Training ${id}`} verbs=${way}><p class="empty">${why}</p></${Panel}>`;
  }
  return html`<${Panel} title=${job.spec.name} verbs=${way}>
    <${RunState} job=${job} kept=${kept} />
    <${Made} job=${job} />
    <${RunCharts} job=${job} others=${others} runs=${runs} at=${at} />
    ${!isEnded(job) && html`<${Learning} id=${id} works=${isLive(job)} />`}
    <${Checkpoints} job=${job} kept=${kept} />
    <${Asked} job=${job} />
    <${Said} job=${job} />
  </${Panel}>`;
}
