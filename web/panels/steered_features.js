import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../api.js";
import { number } from "../lib/format.js";
import { place } from "../lib/route.js";
import { stream } from "../stream.js";
import { said } from "../ui/form.js";
import { html } from "../ui/html.js";

const TYPED_MS = 200;
const FALLBACK = 4; // times a feature's largest activation: where no range could be found

/** The features that are steered with, a slider each, and the search that adds one. */
export function Chosen({ sae, edits, change }) {
  const [about, setAbout] = useState({}); // index → the feature
  const [ranges, setRanges] = useState({}); // index → its range, or why there is none
  const wanted = edits.map(({ feature }) => feature).join(",");
  useEffect(() => {
    for (const { feature } of edits) if (!about[feature]) look(feature);
  }, [wanted]);
  const look = async (feature) => {
    setAbout((was) => ({ ...was, [feature]: {} }));
    try {
      const found = await get(`/api/saes/${sae.id}/features/${feature}`);
      setAbout((was) => ({ ...was, [feature]: found }));
      settle(feature, found.range ?? (await calibrated(sae, feature, (stage) => setRanges((was) => ({ ...was, [feature]: { stage } })))));
    } catch (error) {
      setRanges((was) => ({ ...was, [feature]: { failed: said(error) } }));
      settle(feature, null);
    }
  };
  const latest = useRef(edits);
  latest.current = edits;
  const settle = (feature, range) => {
    if (range) setRanges((was) => ({ ...was, [feature]: range }));
    const strength = Number((range?.kl["0.5"].high ?? 1).toPrecision(2));
    change(latest.current.map((one) => (one.feature === feature && one.strength === null ? { ...one, strength } : one)));
  };
  const set = (feature, strength) => change(edits.map((one) => (one.feature === feature ? { ...one, strength } : one)));
  return html`<fieldset class="chosen"><legend>Features</legend>
    ${edits.map(({ feature, strength }) => html`<${Slider} key=${feature} sae=${sae} feature=${feature} strength=${strength}
      about=${about[feature]} range=${ranges[feature]} set=${(value) => set(feature, value)}
      drop=${() => change(edits.filter((one) => one.feature !== feature))} />`)}
    <${Find} sae=${sae} add=${(feature) => edits.some((one) => one.feature === feature) || change([...edits, { feature, strength: null }])} />
  </fieldset>`;
}

/** The strengths at which a feature moves the model by 0.1, 0.5 and 2 nats; they are found once and kept. */
async function calibrated(sae, feature, tell) {
  const { ranges } = await stream(`/api/saes/${sae.id}/ranges`, { features: [feature] }, (name, data) => name === "progress" && tell(data.stage));
  return ranges[0];
}

function Slider({ sae, feature, strength, about, range, set, drop }) {
  const most = Math.max(Math.abs(range?.kl?.["2"].high ?? 0), Math.abs(range?.kl?.["2"].low ?? 0)) || FALLBACK;
  const label = about?.label?.text ?? "";
  const id = `strength-${feature}`;
  return html`<div class="edit">
    <label for=${id}><a href=${place("features", [sae.name, feature])}>${feature}</a> ${label}</label>
    <input id=${id} type="range" min=${-most} max=${most} step=${most / 100} value=${strength ?? 0} list="zero" disabled=${strength === null}
      aria-valuetext=${`feature ${feature}, strength ${number(strength, 2)}`} onInput=${(event) => set(Number(Number(event.target.value).toPrecision(3)))}
      onDblClick=${() => set(0)} />
    <output for=${id} class="figure">${strength === null ? "…" : number(strength, 2)}</output>
    <button type="button" class="quiet" aria-label=${`Leave out feature ${feature}`} onClick=${drop}>✕</button>
    <p class="details">${rangeWords(range)}</p>
  </div>`;
}

function rangeWords(range) {
  if (!range) return "";
  if (range.failed) return range.failed;
  if (range.stage) return `${range.stage}…`;
  const side = (nats) => ["low", "high"].map((end) => range.kl[nats][end]).filter((value) => value !== null).map((value) => number(value, 2)).join(" and ");
  return ["0.1", "0.5", "2"].map((nats) => side(nats) && `${nats} nats at ${side(nats)}`).filter(Boolean).join(", ");
}

/** Features by the words of their label, or by number. */
function Find({ sae, add }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState([]);
  const timer = useRef(0);
  const typed = ({ target }) => {
    setText(target.value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search(target.value.trim()), TYPED_MS);
  };
  const search = async (words) => {
    if (!words) return setFound([]);
    const asked = new URLSearchParams({ q: words, limit: 8, sort: "-max" });
    try {
      const { features } = await get(`/api/saes/${sae.id}/features?${asked}`);
      setFound(/^\d+$/.test(words) && Number(words) < sae.width ? [{ index: Number(words), label: null }, ...features] : features);
    } catch {
      setFound([]); // without features there is nothing to find; a number still can be typed
      if (/^\d+$/.test(words)) setFound([{ index: Number(words), label: null }]);
    }
  };
  const take = (index) => {
    add(index);
    setText("");
    setFound([]);
  };
  return html`<div class="find">
    <input type="search" aria-label="Add a feature" placeholder="Add a feature: words of its label, or its number" value=${text} onInput=${typed} />
    ${found.length > 0 && html`<ul class="rows">${found.map(({ index, label }) => html`<li key=${index}>
      <button type="button" class="quiet" onClick=${() => take(index)}>${index} ${label?.text ?? ""}</button></li>`)}</ul>`}
  </div>`;
}
