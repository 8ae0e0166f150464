import { number, share } from "../lib/format.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";
import { calledIn, useSome } from "./feature_some.js";

const SHOWN = 8;

/** Features like it: by where their directions point, and by the tokens on which they fire together. */
export function Neighbours({ sae, feature }) {
  const [decoder, cofiring] = [feature.neighbours.decoder.slice(0, SHOWN), feature.neighbours.cofiring.slice(0, SHOWN)];
  const known = useSome(sae, [...decoder, ...cofiring].map((one) => one.index));
  const row = (one, value) => html`<li key=${one.index}>
    <span class="figure">${value}</span>
    <a href=${place("features", [sae.name, one.index])}>${one.index}</a>
    <span class=${known.get(one.index)?.label ? "text" : "text faint"} title=${calledIn(known.get(one.index))}>${calledIn(known.get(one.index))}</span>
    <a href=${place("features", [sae.name, feature.index, one.index])} aria-label=${`Compare with ${one.index}`}>Compare</a></li>`;
  return html`<section class="card" aria-labelledby="like">
    <h3 id="like">Neighbours</h3>
    <p class="details">Nearest directions (cosine of the decoder rows)</p>
    <ul class="neighbours" aria-label="Nearest directions">${decoder.map((one) => row(one, number(one.cosine, 2)))}</ul>
    ${cofiring.length > 0 && html`<p class="details">Fire on the same tokens (share of its own)</p>
      <ul class="neighbours" aria-label="Fire on the same tokens">${cofiring.map((one) => row(one, share(one.share)))}</ul>`}
  </section>`;
}
