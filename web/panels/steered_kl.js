import { useState } from "preact/hooks";
import { number } from "../lib/format.js";
import { html } from "../ui/html.js";

/**
 * How far each token's distribution is from what it would have been, in nats: a bar each, in the order of the text.
 * `at`: the token that is pointed at here or in the text; `point(token | null)`. One control: arrow keys go along it.
 */
export function KlStrip({ one, at, point }) {
  const [here, setHere] = useState(0);
  const values = one.kl_tokens ?? [];
  if (!values.length) return null;
  const most = Math.max(...values.filter((value) => value !== null), 0.001);
  const go = (to) => {
    setHere(to);
    point(to);
  };
  const keys = (event) => {
    const to = { ArrowRight: here + 1, ArrowUp: here + 1, ArrowLeft: here - 1, ArrowDown: here - 1, Home: 0, End: values.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(Math.max(0, Math.min(values.length - 1, to)));
  };
  const under = ({ target }) => target.dataset?.token !== undefined && go(Number(target.dataset.token));
  const words = (n) => `“${one.tokens[n].replaceAll("\n", "↵")}” ${values[n] === null ? "is not finite" : `${number(values[n], 2)} nats`}`;
  return html`<div class="kl">
    <p class="details"><span>KL of each token</span><span class="figure">${at === null ? `up to ${number(most, 2)} nats` : words(at)}</span></p>
    <div class="strip-of" role="slider" tabindex="0" aria-label="KL of each token" aria-valuemin="1" aria-valuemax=${values.length} aria-valuenow=${here + 1} aria-valuetext=${words(here)}
      onKeyDown=${keys} onFocus=${() => point(here)} onBlur=${() => point(null)} onPointerMove=${under} onPointerDown=${under} onMouseLeave=${() => point(null)}>
      ${values.map((value, n) => html`<i key=${n} data-token=${n} class=${n === at ? "pointed" : undefined} data-endless=${value === null ? "" : undefined}
        style=${{ "--part": value === null ? 1 : value / most }}></i>`)}
    </div>
  </div>`;
}
