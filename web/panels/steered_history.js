import { useEffect, useRef, useState } from "preact/hooks";
import { get, patch, remove, said } from "../api.js";
import { ago } from "../lib/format.js";
import { saidEdits } from "../lib/edits.js";
import { place } from "../lib/route.js";
import { go, route, show } from "../route.js";
import { slowClock } from "../state.js";
import { Sure } from "../ui/dialog.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";

const PAGE = 20;
const TYPED_MS = 300;

/** What was steered before with this SAE, the newest first. `turn`: changes when there is another. */
export function History({ sae, turn }) {
  const [query, setQuery] = useState({ q: "", starred: false });
  const [runs, setRuns] = useState(null);
  const [next, setNext] = useState(null);
  const [failed, setFailed] = useState(null);
  const [chosen, setChosen] = useState([]); // ids, to be compared
  const path = (cursor) => `/api/steerings?${new URLSearchParams({ limit: String(PAGE), sae: sae.name, ...(query.q.trim() ? { q: query.q.trim() } : {}), ...(query.starred ? { starred: "true" } : {}), ...(cursor ? { cursor } : {}) })}`;
  useEffect(() => {
    let wanted = true;
    const load = () => get(path()).then((found) => wanted && (setRuns(found.steerings), setNext(found.next), setFailed(null)), (error) => wanted && setFailed(said(error)));
    const timer = setTimeout(load, query.q ? TYPED_MS : 0);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [sae.name, turn, query]);
  const asking = useRef(null);
  asking.current = path(next);
  const more = async () => {
    const mine = path(next);
    try {
      const found = await get(mine);
      if (asking.current !== mine) return; // others are asked for by now, or somebody has pressed twice
      setRuns((was) => [...was, ...found.steerings]);
      setNext(found.next);
    } catch (error) {
      setFailed(said(error));
    }
  };
  const replace = (run) => setRuns((was) => was.map((one) => (one.id === run.id ? { ...one, starred: run.starred, note: run.note } : one)));
  const gone = (id) => {
    setRuns((was) => was.filter((one) => one.id !== id));
    setChosen((was) => was.filter((one) => one !== id));
    if (route.peek().query.run === String(id)) show({ run: null });
  };
  const choose = (id, on) => setChosen((was) => (on ? [...was, id].slice(-2) : was.filter((one) => one !== id)));
  const asked = query.q.trim() || query.starred;
  if (!runs || (!runs.length && !asked)) return failed && html`<p class="refusal" role="alert">${failed}</p>`;
  const compare = () => go("steering", [sae.name], { ...route.peek().query, compare: chosen.slice().sort((a, b) => a - b).join(",") });
  return html`<section class="before" aria-label="Runs">
    <div class="head"><h3>Runs</h3>
      <input type="search" aria-label="Search the runs" placeholder="Words in prompt or note" value=${query.q} onInput=${({ target }) => setQuery({ ...query, q: target.value })} />
      <label class="only"><input type="checkbox" checked=${query.starred} onChange=${({ target }) => setQuery({ ...query, starred: target.checked })} /> starred only</label>
      <button type="button" disabled=${chosen.length !== 2} title="Choose two runs" onClick=${compare}>Compare${chosen.length === 2 ? ` ${chosen.slice().sort((a, b) => a - b).join(" and ")}` : " two"}</button></div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${runs.length > 0 ? html`<ul class="rows">${runs.map((run) => html`<${Run} key=${run.id} run=${run} sae=${sae} chosen=${chosen.includes(run.id)}
      choose=${choose} replace=${replace} gone=${gone} />`)}</ul>` : html`<p class="empty">No run is so. <button type="button" class="quiet" onClick=${() => setQuery({ q: "", starred: false })}>Show all</button></p>`}
    ${next && html`<button type="button" onClick=${more}>Show more</button>`}
  </section>`;
}

function Run({ run, sae, chosen, choose, replace, gone }) {
  const [open, setOpen] = useState(null); // note or delete
  const [failed, setFailed] = useState(null);
  const path = `/api/steerings/${run.id}`;
  const star = () => patch(path, { starred: !run.starred }).then((now) => { replace(now); setFailed(null); }, (error) => setFailed(said(error)));
  const away = () => remove(path).then(() => gone(run.id), (error) => setFailed(said(error)));
  const shown = route.value.query.run === String(run.id);
  const about = [saidEdits(run.steering, sae.name), run.sweep && `× ${run.sweep.join(", ").replaceAll("-", "−")}`, run.samples > 1 && `${run.samples} samples`, `seed ${run.seed}`, run.job && `job ${run.job}`];
  return html`<li class="kept" aria-current=${shown ? "true" : undefined}>
    <input type="checkbox" aria-label=${`Compare run ${run.id}`} checked=${chosen} onChange=${({ target }) => choose(run.id, target.checked)} />
    <button type="button" class="quiet star" aria-pressed=${run.starred} aria-label=${`Star run ${run.id}`} title=${run.starred ? "It is kept for good" : "Keep it for good"} onClick=${star}>${run.starred ? "★" : "☆"}</button>
    <div class="what"><a href=${place("steering", [sae.name], { run: run.id })}><b class="figure">${run.id}</b> ${run.prompt}</a>
      <p class="details">${about.filter(Boolean).map((part) => html`<span key=${part}>${part}</span>`)}</p>
      ${run.note && html`<p class="note">${run.note}</p>`}
      ${failed && html`<p class="refusal" role="alert">${failed}</p>`}</div>
    <time class="details" datetime=${run.created_at}>${ago(run.created_at, slowClock.value)}</time>
    <div class="verbs">
      <button type="button" class="quiet" aria-label=${`Note of run ${run.id}`} onClick=${() => setOpen("note")}>Note</button>
      <a class="quiet-link" download href=${`${path}/export?format=json`} aria-label=${`Download run ${run.id} as JSON`}>JSON</a>
      <a class="quiet-link" download href=${`${path}/export?format=html`} aria-label=${`Download run ${run.id} as a page`}>Page</a>
      <button type="button" class="quiet" aria-label=${`Delete run ${run.id}`} onClick=${() => setOpen("delete")}>Delete</button></div>
    ${open === "note" && html`<${Form} title=${`Note of run ${run.id}`} verb="Save" fields=${[{ name: "note", label: "Note", kind: "area" }]} start=${{ note: run.note ?? "" }}
      send=${({ note }) => patch(path, { note: note ?? null }).then(replace)} onClose=${() => setOpen(null)} />`}
    ${open === "delete" && html`<${Sure} title=${`Delete run ${run.id}?`} verb="Delete" loses="Its texts and measures go, and links to it show nothing any more." onYes=${away} onClose=${() => setOpen(null)} failed=${failed} />`}
  </li>`;
}
