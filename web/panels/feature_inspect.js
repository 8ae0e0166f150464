import { useEffect, useState } from "preact/hooks";
import { density } from "../lib/feature_words.js";
import { count, number } from "../lib/format.js";
import { place } from "../lib/route.js";
import { shownToken, visible } from "../lib/token_runs.js";
import { heat, level } from "../lib/heat.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { among } from "../ui/tokens.js";
import { NotRead, texts, useReading } from "./feature_reading.js";
import { calledIn, useSome } from "./feature_some.js";

const SHOWN = 30;

/** Which features fire on a text: on all of it, or on one of its tokens; a feature that is chosen shades the text. */
export function InspectText({ sae }) {
  const before = texts.value.get(sae.id) ?? [];
  const [at, setAt] = useState(0);
  const shown = before[Math.min(at, before.length - 1)];
  const verbs = html`<a href=${place("features", [sae.name])}>All features</a>`;
  return html`<${Panel} title=${`Inspect a text with ${sae.name}`} verbs=${verbs}>
    <${Ask} sae=${sae} start=${shown?.text ?? ""} came=${() => setAt(0)} />
    ${before.length > 1 && html`<div class="filters"><label>Text <select onChange=${(event) => setAt(Number(event.target.value))}>
      ${before.map((one, n) => html`<option key=${one.text} value=${n} selected=${n === at}>${visible(one.text).slice(0, 80)}</option>`)}</select></label></div>`}
    ${shown && html`<${Found} sae=${sae} shown=${shown} key=${`${shown.text} ${shown.left_out}`} />`}
  </${Panel}>`;
}

function Ask({ sae, start, came }) {
  const [text, setText] = useState(start);
  const [most, setMost] = useState("");
  const reading = useReading(sae);
  const submit = async (event) => {
    event.preventDefault();
    if (await reading.read(text, most === "" ? {} : { ignore_denser: Number(most) / 100 })) came();
  };
  return html`<form class="ask" onSubmit=${submit}>
    <label class="field">Text <textarea rows="4" required value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
    <p class="filters"><label>Leave out features that fire on more than, in % of all tokens <input type="number" min="0.0001" max="100" step="any" placeholder="none" value=${most} onInput=${(event) => setMost(event.target.value)} /></label>
      <button type="submit" class="first" disabled=${reading.busy}>${reading.busy ? "Reading…" : "Inspect"}</button></p>
    <${NotRead} reading=${reading} /></form>`;
}

function Found({ sae, shown }) {
  const [token, setToken] = useState(null); // number of the one whose features are listed
  const [feature, setFeature] = useState(null); // index of the one that shades the text
  const { tokens, pooled, l0, left_out } = shown;
  useEffect(() => setFeature(pooled[0]?.index ?? null), [shown]);
  const listed = token === null
    ? pooled.slice(0, SHOWN).map((one) => ({ index: one.index, value: one.max, more: `on ${count(one.tokens)}, most on ${shownToken(tokens[one.peak].text)}` }))
    : tokens[token].features.slice(0, SHOWN).map((one) => ({ ...one, more: "" }));
  const known = useSome(sae, [...listed.map((one) => one.index), feature ?? listed[0]?.index ?? 0]);
  const title = token === null ? "Strongest features of the text" : `Features on ${shownToken(tokens[token].text)}`;
  return html`<div class="panes inspected">
    <div><section class="card" aria-labelledby="read"><h3 id="read">${feature === null ? "The text" : html`Shaded by <a href=${place("features", [sae.name, feature])}>feature ${feature}</a> ${calledIn(known.get(feature))}`}</h3>
      <p class="tokens pick" role="group" aria-label="Tokens of the text" onKeyDown=${among}>${tokens.map((one, n) => html`<${Token} key=${n} one=${one} feature=${feature} most=${known.get(feature)?.max} chosen=${n === token} focused=${n === (token ?? 0)} choose=${() => setToken(n === token ? null : n)} />`)}</p>
      <p class="details">${count(tokens.length)} tokens, ${number(l0, 1)} features on each${left_out ? `, ${count(left_out)} left out as too frequent` : ""}. Choose a token to see its features.</p></section></div>
    <div><section aria-labelledby="strongest"><h3 id="strongest">${title}</h3>
      ${token !== null && html`<p><button class="quiet" onClick=${() => setToken(null)}>Those of the whole text</button></p>`}
      ${!listed.length && html`<p class="empty">${special(tokens[token])}</p>`}
      <ul class="rows strongest">${listed.map((one) => html`<li key=${one.index} class="finding">
        <b class="figure">${number(one.value, 2)}</b>
        <button class="quiet" aria-pressed=${one.index === feature} aria-label=${`Shade by ${one.index}`} onClick=${() => setFeature(one.index)}>${one.index}</button>
        <span class=${known.get(one.index)?.label ? "text" : "text faint"}>${calledIn(known.get(one.index))}</span>
        <span class="details">${[one.more, known.get(one.index) && `fires on ${density(known.get(one.index).density)}`].filter(Boolean).join(" · ")}</span>
        <a href=${place("features", [sae.name, one.index])} aria-label=${`Open feature ${one.index}`}>Open</a></li>`)}</ul></section></div>
  </div>`;
}

const special = (token) => {
  if (token?.special) return "It is a special token: on those no feature fires.";
  return token?.outlier ? "It is an outlier, which training left out: on those no feature fires." : "No feature fires here.";
};

function Token({ one, feature, most, chosen, focused, choose }) {
  if (one.text === "") return null; // its character is with a later one
  const value = one.features.find(({ index }) => index === feature)?.value ?? 0;
  const keys = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose();
  };
  // No <button>: that is a box, and a text would not run on through it.
  return html`<span role="button" tabindex=${focused ? 0 : -1} class="token" aria-pressed=${chosen} data-level=${level(value, most ?? value)} data-value=${number(value, 2)}
    style=${{ "--heat": heat(value, most ?? value) }} onClick=${choose} onKeyDown=${keys}>${visible(one.text, true)}</span>`;
}
