import { known } from "../lib/format.js";
import { between, placed, spanOf } from "../lib/figures.js";
import { html } from "./html.js";

const [HEIGHT, MIDDLE, CAP, DOT] = [20, 10, 5, 3];

/** A figure as a dot, with its interval of 95 % as whiskers, on a line from `span[0]` to `span[1]`. */
function Interval({ figure, span, show, name, colour = "--text" }) {
  if (!figure || !known(figure.value)) return null;
  const x = (value) => `${placed(value, span)}%`;
  const words = `${name}: ${show(figure.value)}${figure.interval ? `, interval ${between(figure, show)}` : ", without an interval"}`;
  const ends = figure.interval;
  return html`<svg class="interval" role="img" aria-label=${words} height=${HEIGHT} style=${{ "--colour": `var(${colour})` }}>
    <title>${words}</title>
    <line class="ground" x1="0" x2="100%" y1=${MIDDLE} y2=${MIDDLE} />
    ${ends && html`<line x1=${x(ends[0])} x2=${x(ends[1])} y1=${MIDDLE} y2=${MIDDLE} />
      ${ends.map((end) => html`<line key=${end} x1=${x(end)} x2=${x(end)} y1=${MIDDLE - CAP} y2=${MIDDLE + CAP} />`)}`}
    <circle cx=${x(figure.value)} cy=${MIDDLE} r=${DOT} />
  </svg>`;
}

/**
 * Figures beside each other on one line, a row for each: `rows`: [name, {value, interval}] each; `from`: where the line
 * begins, where none is below; `coloured`: each in a colour of its own.
 */
export function Intervals({ title, rows, show, from, coloured }) {
  const shown = rows.filter(([, figure]) => known(figure?.value));
  if (!shown.length) return null;
  const span = spanOf(shown.map(([, figure]) => figure), from);
  return html`<figure class="intervals" aria-label=${title}>
    <figcaption><b>${title}</b></figcaption>
    <dl>${shown.map(([name, figure], at) => html`<div key=${name}>
      <dt>${name}</dt>
      <dd><${Interval} figure=${figure} span=${span} show=${show} name=${name} colour=${coloured ? `--series-${(at % 8) + 1}` : undefined} /></dd>
      <dd class="figure">${show(figure.value)} <span class="details">${figure.interval ? between(figure, show) : ""}</span></dd>
    </div>`)}</dl>
  </figure>`;
}
