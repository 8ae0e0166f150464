import { useEffect, useRef, useState } from "preact/hooks";
import { post, said } from "../api.js";
import { count, number, size } from "../lib/format.js";
import { grouped, hubModel, matching, modelsFor, publishedName, spans } from "../lib/published.js";
import { artifacts, newest } from "../state.js";
import { html } from "../ui/html.js";
import { HubToken } from "./hub_token.js";

const OPEN = 12; // SAEs of a source, or of what a filter leaves, that are shown at once; more are folded by layer

/** "org/saes:layer_1" → ["org/saes", "layer_1"]. */
export function placeOf(source) {
  const [, place, path] = /^(upload:[0-9a-f]{32}|[^:]*)(?::(.*))?$/s.exec(source) ?? ["", source];
  return [place ?? source, path ?? ""];
}

/** Which SAEs there are at a source, nothing of which is fetched yet; some are chosen. `values`, `set`: those of the form. */
export function Published({ values, set }) {
  const { source, revision } = values;
  const [seen, setSeen] = useState(null);
  const now = useRef("");
  now.current = at({ source, revision });
  const look = async () => {
    const of = now.current;
    const isOfIt = () => now.current === of; // or the form names another source by now
    setSeen({ of, busy: true });
    set({ chosen: [] });
    try {
      const found = await post("/api/saes/preview", { source, ...(revision ? { revision } : {}) });
      if (!isOfIt()) return;
      setSeen({ of, found });
      const needs = neededOf(found.saes);
      set({ needs: needs && !modelsFor(needs, newest("model")).length && hubModel(needs).includes("/") ? needs : null });
    } catch (error) {
      if (isOfIt()) setSeen({ of, failed: said(error) });
    }
  };
  useEffect(() => {
    if (source?.startsWith("upload:")) look();
  }, [source]);
  const shown = seen?.of === now.current ? seen : null;
  return html`<div class="preview">
    <button type="button" disabled=${!source || shown?.busy} onClick=${look}>${shown?.busy ? "Looking…" : "Show what is there"}</button>
    ${shown?.failed && html`<p class="refusal" role="alert">${shown.failed}</p>`}
    ${shown?.found && html`<${Found} found=${shown.found} values=${values} set=${set} />`}
    <${HubToken} source=${source} failed=${shown?.failed} onKept=${look} />
  </div>`;
}

/** Where somebody looks: a source, at a revision. */
const at = ({ source = "", revision = "" }) => `${placeOf(source)[0]} ${revision}`;

/** The model that all of them say they read; null when they say none, or several. */
function neededOf(saes) {
  const models = [...new Set(saes.map(({ model }) => model).filter(Boolean))];
  return models.length === 1 ? models[0] : null;
}

function Found({ found, values, set }) {
  const [text, setText] = useState("");
  const { chosen = [] } = values;
  const some = matching(found.saes, text);
  const is = (one) => chosen.some(({ path }) => path === one.path);
  const take = (ones, on) => {
    const rest = chosen.filter((other) => !ones.some(({ path }) => path === other.path));
    const now = on ? [...rest, ...named(ones, values.called ?? found.source, rest)] : rest;
    set({ chosen: now, ...(now.length === 1 && !values.named ? { name: now[0].name } : {}) });
  };
  const facts = [`${count(found.count)} ${found.count === 1 ? "SAE" : "SAEs"}`, found.licence && `licence ${found.licence}`, found.revision && `commit ${found.revision.slice(0, 8)}`];
  return html`<p>${facts.filter(Boolean).join(" · ")}</p>
    <${Needed} saes=${found.saes} values=${values} set=${set} />
    ${found.saes.length > OPEN && html`<input type="search" class="whole" aria-label="Find in what is there" placeholder="layer 12, 16k, l0 82" value=${text} onInput=${({ target }) => setText(target.value)}
      onKeyDown=${(event) => event.key === "Enter" && event.preventDefault()} />`}
    ${!some.length && found.saes.length > 0 && html`<p>None of them has “${text}”. <button type="button" class="quiet" onClick=${() => setText("")}>Clear</button></p>`}
    ${!found.saes.length && html`<p>No SAE in a layout that is known here is there.</p>`}
    <div class="published" role="group" aria-label="What is there">${grouped(some).map((group) => html`<${Group} key=${group.key} group=${group} open=${some.length <= OPEN} is=${is} take=${take} />`)}</div>
    ${found.left_out > 0 && html`<p class="details">${count(found.left_out)} more have no room in this list: name one with :path.</p>`}
    ${chosen.length > 0 && html`<p role="status"><b>${count(chosen.length)} chosen</b>, ${size(chosen.reduce((sum, { bytes }) => sum + bytes, 0))} to fetch${
      chosen.length > 1 ? html`: <span class="details">${chosen.map(({ name }) => name).join(", ")}</span>` : ""}</p>`}`;
}

/** Those with names that are free, also among each other. */
function named(ones, source, rest) {
  const taken = new Map(artifacts.sae.value);
  rest.forEach(({ name }) => taken.set(name, true));
  return ones.map((one) => {
    const name = publishedName(source, one.path, taken);
    taken.set(name, true);
    return { ...one, name };
  });
}

/** SAEs of one layer and hook. */
function Group({ group, open, is, take }) {
  const { layer, hook, saes } = group;
  const chosen = saes.filter(is).length;
  const list = html`<ul>${saes.map((one) => html`<li key=${one.path}><label>
    <input type="checkbox" checked=${is(one)} onChange=${({ target }) => take([one], target.checked)} />
    <span class="figures">${one.width !== null && html`<b>${count(one.width)}</b> wide `}${one.l0 !== null && html`L0 <b>${number(one.l0, one.l0 % 1 ? 1 : 0)}</b> `}</span>
    <span class="details">${[one.path || "the whole of it", one.format, one.pickle && "a pickle", size(one.bytes)].filter(Boolean).join(" · ")}</span></label></li>`)}</ul>`;
  return html`<details open=${open || undefined}><summary>${layer} ${hook && html`<code>${hook}</code> `}
      <span class="details">${count(saes.length)} ${saes.length === 1 ? "SAE" : "SAEs"}${spans(saes) && ` · ${spans(saes)}`}${chosen ? ` · ${count(chosen)} chosen` : ""}</span></summary>
    ${saes.length > 1 && html`<button type="button" class="quiet" onClick=${() => take(saes, chosen < saes.length)}>${chosen < saes.length ? `Choose all ${count(saes.length)}` : "Choose none"}</button>`}
    ${list}</details>`;
}

/** Which model they read, whether it is here, and the offer to add it before them. */
function Needed({ saes, values, set }) {
  const said_ = neededOf(saes);
  if (!said_) return saes.length > 0 && html`<p class="details">Which model they read is not said, or they differ: choose it below “More” where it is not found.</p>`;
  const here = modelsFor(said_, newest("model"));
  if (here.length) return html`<p>Reads <b>${said_}</b>, which is here as ${here.map(({ name }) => name).join(", ")}.</p>`;
  const source = hubModel(said_);
  if (!source.includes("/")) return html`<p>Reads <b>${said_}</b>, which is not here: add that model first, or choose another below “More”.</p>`;
  return html`<p>Reads <b>${said_}</b>, which is not here.</p>
    <label class="switch"><input type="checkbox" checked=${values.needs === said_} onChange=${({ target }) => set({ needs: target.checked ? said_ : null })} />
      Add the model ${source} first; the SAE waits for it</label>`;
}
