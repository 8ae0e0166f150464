import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { ago, duration, size } from "../lib/format.js";
import { readings } from "../lib/system.js";
import { sample, slowClock } from "../state.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Table } from "../ui/table.js";
import { Disk } from "./disk.js";

const LOOK_MS = 5000; // at what runs

const RUNNING = [
  ["Job", "name", (one) => `${one.kind.replaceAll("_", " ")} ${one.name ?? ""}`],
  ["Stage", "text", (one) => one.stage],
  ["Left", "figure", (one) => (one.eta_s === null ? "—" : duration(one.eta_s))],
  ["Predicted", "figure", (one) => size(one.predicted_bytes)],
  ["Measured", "figure", (one) => size(one.measured_bytes)],
  ["On the GPU", "figure", (one) => size(one.gpu_bytes)],
];

/** The machine, what runs on it, and what doctor finds. */
export function System() {
  const [running, setRunning] = useState({ running: [], session: null });
  const [studio, setStudio] = useState(null);
  const [report, setReport] = useState(null);
  useEffect(() => {
    const look = () => get("/api/ps").then(setRunning, () => {}); // the banner says when the studio is away
    look();
    get("/api/status").then(setStudio, () => {});
    const timer = setInterval(look, LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  const examine = () => get("/api/doctor").then(setReport, (error) => setReport({ failed: said(error) }));
  const facts = readings(sample.value);
  return html`<${Panel} title="System">
    <dl class="facts card">${facts.map(({ name, value, about }) => html`<div key=${name} title=${about}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <section aria-labelledby="works">
      <h3 id="works">At work</h3>
      ${running.running.length
        ? html`<${Table} label="At work" columns=${RUNNING} rows=${running.running} of=${(one) => one.job} />`
        : html`<p class="empty">No job runs.</p>`}
    </section>
    <${Session} session=${running.session} />
    ${studio && html`<section aria-labelledby="versions">
      <h3 id="versions">This studio</h3>
      <dl class="facts card"><div><dt>miStudio</dt><dd>${studio.version}</dd></div><div><dt>Python</dt><dd>${studio.python}</dd></div>
        <div><dt>Data folder</dt><dd><code>${studio.data}</code></dd></div></dl>
    </section>`}
    <${Disk} />
    <section aria-labelledby="doctor">
      <h3 id="doctor">Is everything well?</h3>
      <button onClick=${examine}>Look</button>
      ${report && html`<${Report} report=${report} />`}
    </section>
  </${Panel}>`;
}

function Session({ session }) {
  if (!session) return null;
  const facts = [session.model, session.precision, session.saes.join(", "), size(session.memory_bytes),
    session.expires_at && `ends ${ago(session.expires_at, slowClock.value)} when nobody uses it`];
  return html`<section aria-labelledby="session"><h3 id="session">Kept in memory for steering</h3>
    <p class="card">${facts.filter(Boolean).join(" · ")}</p></section>`;
}

function Report({ report }) {
  if (report.failed) return html`<p class="refusal" role="alert">${report.failed}</p>`;
  return html`<ul class="rows">${report.findings.map((one, at) => html`<li class="finding" key=${at}>
    <b>${one.level}</b> ${one.message} ${one.remedy && html`<p class="details">${one.remedy}</p>`}</li>`)}</ul>`;
}
