import { useRef, useState } from "preact/hooks";
import { number } from "../lib/format.js";
import { html } from "../ui/html.js";

/**
 * How far each token's distribution is from what it would have been, in nats: a bar each, in the order of the text.
 * `at`: the token that is pointed at here or in the text; `point(token | null)`. One stop for the tab key, then arrows.
 */
export function KlStrip({ one, at, point }) {
  const [here, setHere] = useState(0);
  const bars = useRef(null);
  const values = one.kl_tokens ?? [];
  if (!values.length) return null;
  const most = Math.max(...values.filter((value) => value !== null), 0.001);
  const go = (next) => {
    const to = Math.max(0, Math.min(values.length - 1, next));
    setHere(to);
    bars.current.children[to].focus();
  };
  const keys = (event) => {
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: values.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  };
  const words = (n) => `“${one.tokens[n].replaceAll("\n", "↵")}” ${values[n] === null ? "is not finite" : `${number(values[n], 2)} nats`}`;
  return html`<div class="kl">
    <p class="details"><span>KL of each token</span><span class="figure">${at === null ? `up to ${number(most, 2)} nats` : words(at)}</span></p>
    <div class="strip-of" role="group" aria-label="KL of each token" ref=${bars} onKeyDown=${keys} onMouseLeave=${() => point(null)}>
      ${values.map((value, n) => html`<button type="button" key=${n} class=${n === at ? "pointed" : undefined} tabindex=${n === here ? 0 : -1} aria-label=${words(n)}
        data-endless=${value === null ? "" : undefined} style=${{ "--part": value === null ? 1 : value / most }}
        onFocus=${() => { setHere(n); point(n); }} onBlur=${() => point(null)} onMouseEnter=${() => point(n)}></button>`)}
    </div>
  </div>`;
}
