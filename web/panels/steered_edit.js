import { useRef, useState } from "preact/hooks";
import { NATS, WORDS, bandWords, bands, reach, snapped } from "../lib/bands.js";
import { keyOf, neutral, word } from "../lib/edits.js";
import { number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";

const WIDE = 10; // times a feature's largest activation
const ROOM = { apart: 0.12 }; // of the slider, that a band's word needs; other words are shorter
const SHORT = 0.085;
const ENDS = 0.72; // of a slider's half: beyond it stand the words at its ends
const OPS = [["add", "add: push along its direction"], ["clamp", "clamp: hold it at a value"], ["scale", "scale: multiply it"], ["ablate", "ablate: take it out"]];
const SCOPES = [["all", "on all tokens"], ["generated", "on what is written only"], ["active", "where it fires by itself"], ["from", "from a token on"]];

/** One feature: what it is called, how strongly it is steered, and how. `own`: the SAE whose name needs not be said. */
export function Edited({ edit, own, calibration, ranges, set, drop }) {
  const { sae, feature, op, strength, off } = edit;
  const { found } = useLoaded(`/api/saes/${encodeURIComponent(sae)}/features/${feature}`);
  const range = op === "add" ? calibration?.range ?? null : null;
  const id = `strength-${keyOf(edit)}`;
  const name = `feature ${sae === own ? "" : `${sae}/`}${feature}`;
  const does = strength === null || off ? "" : [word(edit), range && bandWords(range, strength)].filter(Boolean).join(": ");
  return html`<div class="edit" role="group" aria-label=${name} data-off=${off ? "" : undefined}>
    <div class="of">
      <input type="checkbox" aria-label=${`Steer with ${name}`} title="Leave it out for a moment" checked=${!off} onChange=${({ target }) => set({ off: !target.checked })} />
      <p><a href=${place("features", [sae, feature])}>${sae === own ? "" : `${sae}/`}${feature}</a> ${found?.label?.text ?? ""}</p>
    </div>
    ${op === "ablate" ? html`<p class="details">It is taken out wherever it fires.</p>` : html`<${Slider} id=${id} name=${name} edit=${edit} range=${range} set=${set} />`}
    ${op === "ablate" ? html`<span></span>` : html`<${Exact} label=${`Strength of ${name}`} strength=${strength} set=${(value) => set({ strength: value })} />`}
    <button type="button" class="quiet" aria-label=${`Leave out ${name}`} title="Leave it out" onClick=${drop}>✕</button>
    <div class="below">
      <${How} edit=${edit} name=${name} set=${set} />
      <p class="details">${off ? "left out for now" : does}</p>
      ${op === "add" && !off && html`<${Calibrating} edit=${edit} about=${calibration} ranges=${ranges} name=${name} />`}
    </div>
  </div>`;
}

/** From suppressed to amplified, 0 in the middle, the bands of its effect behind. */
function Slider({ id, name, edit, range, set }) {
  const { op, strength } = edit;
  const pointer = useRef(false);
  const { most, step } = reach(range, op === "add" ? WIDE : 4);
  const zero = neutral(op);
  const heard = ({ target }) => {
    const value = Number(target.value);
    set({ strength: pointer.current ? snapped(value - zero, most) + zero : Number(value.toPrecision(6)) });
  };
  const reset = () => set({ strength: zero });
  const keys = (event) => {
    if (event.key !== "0") return;
    event.preventDefault();
    reset();
  };
  const at = (value) => ({ "--at": `${(50 * (value + most)) / most}%` });
  const spoken = `${name}, strength ${number(strength ?? 1, 2)}${range && strength ? `, ${bandWords(range, strength)}` : ""}`;
  return html`<div class="slider" data-wide=${range ? undefined : ""}>
    <div class="bands" aria-hidden="true">${bands(range, most).map(({ from, to, name: band }) => {
      const part = (to - from) / (2 * most);
      return html`<span key=${`${from}`} data-band=${band} data-side=${to <= 0 ? "low" : "high"} style=${{ flexGrow: part }}>${part >= (ROOM[band] ?? SHORT) && html`<small>${WORDS[band]}</small>`}</span>`;
    })}</div>
    <i class="zero" aria-hidden="true" style=${at(zero)}></i>
    <input type="range" id=${id} aria-label=${`${name}: slider`} min=${-most} max=${most} step=${step} value=${strength ?? 1}
      aria-valuetext=${spoken} title="Double-click or key 0: back to where it does nothing" onInput=${heard} onDblClick=${reset} onKeyDown=${keys}
      onPointerDown=${() => (pointer.current = true)} onPointerUp=${() => (pointer.current = false)} onPointerCancel=${() => (pointer.current = false)} />
    <div class="ends" aria-hidden="true"><span>◂ suppress</span>${marks(range).filter(([, value]) => Math.abs(value) < ENDS * most).map(([nats, value]) => html`<span class="nats" key=${`${nats}${value > 0}`} style=${at(value)}>${nats}</span>`)}<span>amplify ▸</span></div>
  </div>`;
}

/** Where the marks of so many nats are. */
const marks = (range) => (range ? NATS.flatMap((nats) => [range.kl[nats].low, range.kl[nats].high].filter((value) => value !== null).map((value) => [nats, value])) : []);

/** The strength as a number; what is no number stays as it is typed, until it is one. */
function Exact({ label, strength, set }) {
  const [typed, setTyped] = useState(null);
  const heard = ({ target }) => {
    setTyped(target.value);
    const value = Number(target.value.replace("−", "-").replace(",", "."));
    if (target.value.trim() && Number.isFinite(value) && Math.abs(value) <= 1000) set(value);
  };
  const text = strength === null ? "" : String(Number(strength.toPrecision(6)));
  const wrong = typed !== null && !(Math.abs(Number(typed.replace("−", "-").replace(",", "."))) <= 1000);
  return html`<div><input class="exact figure" type="text" inputmode="text" aria-label=${label} aria-invalid=${wrong ? "true" : undefined} placeholder="1"
    value=${typed ?? text} onInput=${heard} onBlur=${() => setTyped(null)} />${wrong && html`<p class="refusal" role="alert">From −1000 to 1000.</p>`}</div>`;
}

/** How a feature is changed, folded: that it is added is what people mean mostly. */
function How({ edit, name, set }) {
  const { op, scope } = edit;
  const [kind, from] = scope.split(":");
  const summary = [op === "add" ? "" : op, scope === "all" ? "" : scope === "generated" ? "written tokens" : scope.replace(":", " token ")].filter(Boolean).join(", ") || "method";
  const setOp = (next) => set({ op: next, strength: next === "ablate" ? 1 : next === "scale" ? 2 : next === "clamp" ? 1 : op === "add" ? edit.strength : null });
  return html`<details class="how-to"><summary aria-label=${`How ${name} is changed`}>${summary}</summary><div class="filters">
    <label>Method <select value=${op} onChange=${({ target }) => setOp(target.value)}>${OPS.map(([of, words]) => html`<option value=${of} key=${of} selected=${of === op}>${words}</option>`)}</select></label>
    <label>Where <select value=${kind} onChange=${({ target }) => set({ scope: target.value === "from" ? "from:0" : target.value })}>
      ${SCOPES.map(([of, words]) => html`<option value=${of} key=${of} selected=${of === kind}>${words}</option>`)}</select></label>
    ${kind === "from" && html`<label>Token of the prompt <input type="number" min="0" max="999999" value=${from} onInput=${({ target }) => set({ scope: `from:${Math.max(0, Math.trunc(Number(target.value) || 0))}` })} /></label>`}
  </div></details>`;
}

/** How far calibration is; why there is none is said below all of them. */
function Calibrating({ edit, about, ranges, name }) {
  if (!about || about.range) return about?.range && html`<p class="details known">${sentence(about.range)}</p>`;
  if (about.stage) {
    return html`<p class="details verbs" role="status">Looking for useful strengths: ${about.stage}${about.share ? ` ${share(about.share)}` : ""}${edit.strength === null ? "; until then 1, its largest activation" : ""}
      <button type="button" class="quiet" aria-label=${`Stop looking for the strengths of ${name}`} onClick=${() => ranges.stop(edit)}>Stop</button></p>`;
  }
  if (about.wide) return html`<p class="details">Not calibrated: a wide range, in units of its largest activation.</p>`;
  return html`<p class="details">Not calibrated.</p>`;
}

function sentence(range) {
  const side = (nats) => ["low", "high"].map((end) => range.kl[nats][end]).filter((value) => value !== null).map((value) => number(value, 2).replace("-", "−")).join(" and ");
  const found = NATS.map((nats) => side(nats) && `${nats} nats at ${side(nats)}`).filter(Boolean);
  return found.length ? found.join(" · ") : "No strength that was tried moves the model.";
}
