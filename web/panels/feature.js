import { useEffect, useState } from "preact/hooks";
import { get, patch, post, put } from "../api.js";
import { ago, count, number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { slowClock } from "../state.js";
import { said } from "../ui/form.js";
import { Bars } from "../ui/histogram.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Tokens } from "../ui/tokens.js";

const BANDS = ["0 to 20 %", "20 to 40 %", "40 to 60 %", "60 to 80 %", "80 to 100 %"];

/** One feature: what is said of it on the left, what it does and where it fires on the right. */
export function Feature({ sae, index, query }) {
  const [feature, setFeature] = useState(null);
  const [failed, setFailed] = useState(null);
  const load = () => get(`/api/saes/${sae.id}/features/${index}`).then(setFeature, (error) => setFailed(said(error)));
  useEffect(() => {
    setFailed(null);
    load();
  }, [sae.id, index]);
  const way = html`
    <a class="button first" href=${place("steering", [sae.name], { features: index })}>Steer with this</a>
    <a href=${place("features", [sae.name], query)}>All features</a>
    ${index > 0 && html`<a href=${place("features", [sae.name, index - 1], query)} rel="prev" title="the key [">Previous</a>`}
    ${index + 1 < sae.width && html`<a href=${place("features", [sae.name, index + 1], query)} rel="next" title="the key ]">Next</a>`}`;
  return html`<${Panel} title=${`Feature ${index} of ${sae.name}`} verbs=${way}>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${feature && html`<div class="panes" aria-busy=${feature.index !== index}>
      <div>
        <${Called} sae=${sae} feature=${feature} changed=${load} key=${feature.index} />
        <${Like} sae=${sae} feature=${feature} />
      </div>
      <div>
        <${Shape} feature=${feature} />
        <${Try} sae=${sae} feature=${feature} key=${feature.index} />
        <${Examples} feature=${feature} />
      </div>
    </div>`}
  </${Panel}>`;
}

/** What it is called, by whom, what that is worth; the star and the note. */
function Called({ sae, feature, changed }) {
  const { label, score, marks, index } = feature;
  const [text, setText] = useState(null);
  const [failed, setFailed] = useState(null);
  const ask = (promise) => promise.then(changed, (error) => setFailed(said(error)));
  const keep = (event) => {
    event.preventDefault();
    ask(put(`/api/saes/${sae.id}/features/${index}/label`, { text })).then(() => setText(null));
  };
  const at = `/api/saes/${sae.id}/features/${index}`;
  return html`<section class="card" aria-labelledby="called">
    <h3 id="called">Label</h3>
    ${text === null
      ? html`<p class="label">${label?.text ?? "no label yet"}</p>
        ${label?.explanation && html`<p class="details">${label.explanation}</p>`}
        ${label && html`<p class="details">by ${label.provider === "person" ? "a person" : [label.provider, label.model].filter(Boolean).join(", ")}${", "}
          ${ago(label.created_at, slowClock.value)}${score ? `, balanced accuracy ${number(score.balanced_accuracy, 2)} (${score.method})` : ""}</p>`}
        <p class="verbs"><button onClick=${() => setText(label?.text ?? "")}>${label ? "Change" : "Write one"}</button>
          <button aria-pressed=${marks.starred} onClick=${() => ask(patch(at, { starred: !marks.starred }))}>${marks.starred ? "★ Starred" : "☆ Star"}</button></p>`
      : html`<form onSubmit=${keep}><input aria-label="Label" maxlength="200" required value=${text} onInput=${(event) => setText(event.target.value)} />
        <p class="verbs"><button type="submit" class="first">Keep</button><button type="button" onClick=${() => setText(null)}>Cancel</button></p></form>`}
    ${marks.note && html`<p>${marks.note}</p>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
  </section>`;
}

function Like({ sae, feature }) {
  const { decoder, cofiring } = feature.neighbours;
  const row = (one, value) => html`<li key=${one.index}><a href=${place("features", [sae.name, one.index])}>${one.index}</a> <span class="details">${value}</span></li>`;
  return html`<section class="card" aria-labelledby="like">
    <h3 id="like">Close to it</h3>
    <p class="details">in direction (cosine of the decoder rows)</p>
    <ul class="plainlist">${decoder.slice(0, 6).map((one) => row(one, number(one.cosine, 2)))}</ul>
    ${cofiring.length > 0 && html`<p class="details">fires on the same tokens (share)</p>
      <ul class="plainlist">${cofiring.slice(0, 6).map((one) => row(one, share(one.share)))}</ul>`}
  </section>`;
}

/** How often and how strongly it fires, and what it does to the next token. */
function Shape({ feature }) {
  const { histogram, logits, density, max, fired, dead } = feature;
  if (dead) return html`<p class="card">It never fires on the text that was read.</p>`;
  const words = (some) => html`<ul class="plainlist">${some.slice(0, 8).map((one) =>
    html`<li key=${one.id}><code>${one.text}</code> <span class="details">${number(one.value, 2)}</span></li>`)}</ul>`;
  return html`<section class="card shape" aria-labelledby="shape">
    <div><h3 id="shape">Activations</h3>
      <p>${share(density)} of the tokens (${count(fired)}), at most ${number(max, 2)}</p>
      <${Bars} counts=${histogram.counts} edges=${histogram.edges} label="How many activations are how strong" /></div>
    ${logits && html`<div><h3>Promotes</h3>${words(logits.top)}</div><div><h3>Suppresses</h3>${words(logits.bottom)}</div>`}
  </section>`;
}

/** A person's own text, read by the model. */
function Try({ sae, feature }) {
  const [text, setText] = useState("");
  const [read, setRead] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setRead({ busy: true });
    try {
      const { tokens } = await post(`/api/saes/${sae.id}/inspect`, { text, top: 1000 });
      setRead({ tokens });
    } catch (error) {
      setRead({ failed: said(error) });
    }
  };
  const value = (token) => token.features?.find((one) => one.index === feature.index)?.value ?? 0;
  return html`<section class="card" aria-labelledby="try">
    <h3 id="try">Try your own text</h3>
    <form class="filters" onSubmit=${submit}><input aria-label="Text" required value=${text} onInput=${(event) => setText(event.target.value)} />
      <button type="submit" disabled=${read?.busy}>${read?.busy ? "Reading…" : "Read"}</button></form>
    ${read?.failed && html`<p class="refusal" role="alert">${read.failed}</p>`}
    ${read?.tokens && html`<p><${Tokens} texts=${read.tokens.map((one) => one.text)} values=${read.tokens.map(value)} most=${feature.max} /></p>`}
  </section>`;
}

/** Where it fires: the strongest, then those of each band of strength, then where it does not. */
function Examples({ feature }) {
  const groups = [
    ["Strongest", (one) => one.kind === "top"],
    ...BANDS.map((words, band) => [`${words} of the maximum`, (one) => one.kind === "band" && one.band === band]).reverse(),
    ["At random", (one) => one.kind === "random"],
    ["Nearly fired", (one) => one.kind === "near"],
  ];
  return groups.map(([title, belongs]) => {
    const some = feature.examples.filter(belongs);
    if (!some.length) return null;
    return html`<section key=${title} class="examples"><h3>${title} <span class="number">${some.length}</span></h3>
      <ul class="rows">${some.map((one) => html`<li class="example" key=${`${one.row}-${one.peak}-${one.first}`}>
        <b class="figure">${number(one.max, 2)}</b>
        <p><${Tokens} texts=${one.texts} values=${one.activations} most=${feature.max} peak=${one.peak} /></p></li>`)}</ul></section>`;
  });
}
