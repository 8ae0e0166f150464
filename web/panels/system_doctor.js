import { useEffect, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { remedy, versions } from "../lib/machine.js";
import { useLoaded } from "../ui/asked.js";
import { Command } from "../ui/command.js";
import { html } from "../ui/html.js";
import { Mark } from "../ui/mark.js";

const WORDS = { problem: "Problem", warning: "Warning", ok: "Fine" };
const MARKS = { problem: "failed", warning: "partial", ok: "done" };

/** What is wrong here and how to mend it; and what everything is, by version. */
export function Doctor() {
  const [report, setReport] = useState(null);
  const examine = () => {
    setReport(null);
    get("/api/doctor").then(setReport, (error) => setReport({ failed: said(error) }));
  };
  useEffect(examine, []);
  const findings = report?.findings ?? [];
  const wrong = ["problem", "warning"].flatMap((level) => findings.filter((one) => one.level === level));
  const fine = findings.filter(({ level }) => level === "ok");
  return html`<section aria-labelledby="doctor"><h3 id="doctor">Is everything well?</h3>
    ${!report && html`<p class="empty late">Looking at what the studio needs.</p>`}
    ${report?.failed && html`<p class="refusal" role="alert">${report.failed}</p>`}
    ${report?.findings && html`<ul class="rows" aria-label="Findings">
      ${wrong.map((one) => html`<${Finding} key=${one.name} one=${one} />`)}
      <li class="finding"><details><summary>${wrong.length ? `${fine.length} other checks are fine` : `All ${fine.length} checks are fine`}</summary>
        <ul>${fine.map((one) => html`<${Finding} key=${one.name} one=${one} />`)}</ul></details></li>
    </ul>`}
    <p class="verbs"><button disabled=${!report} onClick=${examine}>Look again</button></p>
    <${Versions} findings=${findings} />
  </section>`;
}

function Finding({ one }) {
  const { words, line } = remedy(one.remedy ?? "");
  return html`<li class=${`finding check ${one.level}`}>
    <${Mark} state=${MARKS[one.level]} />
    <div><p><b>${WORDS[one.level]}</b>: ${one.name}. ${one.message}</p>
      ${words && html`<p>${words}</p>`}
      ${line && html`<${Command} line=${line} />`}</div></li>`;
}

function Versions({ findings }) {
  const { found: studio } = useLoaded("/api/status");
  const said = (name) => findings.find((one) => one.name === name)?.message ?? "";
  if (!studio) return null;
  const shown = [["miStudio", studio.version], ["Python", studio.python], ...versions(said("packages"))];
  return html`<h3 id="versions">Versions</h3>
    <dl class="facts card" aria-labelledby="versions">${shown.map(([name, version]) => html`<div key=${name}><dt>${name}</dt><dd>${version}</dd></div>`)}
      ${said("torch") && html`<div class="wide"><dt>Jobs compute with</dt><dd>${said("torch")}</dd></div>`}
      <div class="wide"><dt>Data folder</dt><dd><code>${studio.data}</code></dd></div></dl>`;
}
