import { number } from "../lib/format.js";
import { saidEdits } from "../lib/edits.js";
import { place } from "../lib/route.js";
import { differences } from "../lib/steered.js";
import { compared } from "../lib/words.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Table } from "../ui/table.js";

/** Two runs: what was asked otherwise, and their texts beside each other. */
export function Compared({ sae, ids, query }) {
  const [a, b] = [ids[0], ids[1]].map((id) => useLoaded(id ? `/api/steerings/${encodeURIComponent(id)}` : null));
  const back = html`<a class="button" href=${place("steering", [sae.name], { ...query, compare: null })}>Back to steering</a>`;
  const failed = a.failed ?? b.failed;
  return html`<${Panel} title="Steering" verbs=${back}>
    ${!ids[1] && html`<p class="empty">Two runs are compared: choose them among the runs.</p>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${a.found && b.found && html`<${Differences} a=${a.found} b=${b.found} /><${Pairs} a=${a.found} b=${b.found} />`}
  </${Panel}>`;
}

function Differences({ a, b }) {
  const columns = [["What", "name", ([what]) => what.replaceAll("_", " ")], [`Run ${a.id}`, "text", (row) => row[1]], [`Run ${b.id}`, "text", (row) => row[2]]];
  const found = differences(a, b);
  if (!found.length) return html`<p>Both were asked for and made alike.</p>`;
  return html`<section aria-labelledby="otherwise"><h3 id="otherwise">What was asked otherwise</h3>
    <${Table} label="What was asked otherwise" columns=${columns} rows=${found} of=${(row) => row[0]} /></section>`;
}

function Pairs({ a, b }) {
  const [one, other] = [a, b].map(texts);
  return html`${one.slice(0, other.length).map((left, at) => {
    const right = other[at];
    return html`<div class="beside" key=${at} style=${{ "--columns": 2 }}>
      <${Side} run=${a.id} of=${left} other=${right} Mark="del" /><${Side} run=${b.id} of=${right} other=${left} Mark="mark" /></div>`;
  })}${one.length !== other.length && html`<p class="details">Run ${one.length > other.length ? a.id : b.id} has ${Math.abs(one.length - other.length)} more.</p>`}`;
}

function Side({ run, of, other, Mark }) {
  const { text } = of;
  return html`<article class="card" aria-label=${`Run ${run}: ${of.title}`}><h3>Run ${run} <span class="details">${of.title}</span></h3>
    <p class="text words">${compared(text.text, other.text.text).map((piece, at) => (piece.changed ? html`<${Mark} key=${at}>${piece.text}</${Mark}>` : piece.text))}</p>
    <dl class="facts">${text.kl !== undefined && html`<div><dt>KL</dt><dd>${number(text.kl, 2)} nats</dd></div>`}<div><dt>Perplexity</dt><dd>${number(text.perplexity, 1)}</dd></div></dl></article>`;
}

/** All of a run: of each sample the baseline, then the steered ones. */
function texts({ sae, result }) {
  return result.baselines.flatMap((baseline) => [
    { title: `baseline${result.baselines.length > 1 ? `, sample ${baseline.sample + 1}` : ""}`, text: baseline },
    ...result.steered.filter(({ sample }) => sample === baseline.sample).map((text) => ({ title: saidEdits(text.strengths, sae), text })),
  ]);
}
