import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { before, overTime, unmeasured, withSample } from "../lib/machine.js";
import { phase, sample } from "../state.js";
import { Chart } from "../ui/chart.js";
import { html } from "../ui/html.js";

/** The last ten minutes of the machine. */
export function Machine() {
  const samples = useHistory();
  const { steps, charts } = overTime(samples);
  return html`<section aria-labelledby="machine"><h3 id="machine">The last ten minutes</h3>
    <div class="charts machine">${charts.map(({ title, lines, words, range }) => html`<${Chart} key=${title} title=${title} steps=${steps} lines=${lines}
      xWords=${before} yWords=${words} yRange=${range} />`)}</div>
    ${samples.length > 0 && html`<p class="help">${unmeasured(samples).join(" ")}</p>`}
  </section>`;
}

/** What the studio has read so far, anew on each connection, and what it reads from then on. */
function useHistory() {
  const [samples, setSamples] = useState([]);
  const live = phase.value === "live";
  const newest = sample.value;
  useEffect(() => {
    if (!live) return;
    get("/api/system/history").then((found) => setSamples(found.samples), () => {}); // the banner says why
  }, [live]);
  useEffect(() => setSamples((was) => withSample(was, newest)), [newest]);
  return samples;
}
