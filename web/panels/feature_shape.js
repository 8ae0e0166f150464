import { density } from "../lib/feature_words.js";
import { count, number, share } from "../lib/format.js";
import { shownToken } from "../lib/token_runs.js";
import { Bars } from "../ui/histogram.js";
import { html } from "../ui/html.js";
import { Term } from "../ui/term.js";

const TOKENS = 10;
const TERMS = { "Fires on": "density" };

/** How often and how strongly it fires, on which tokens, and what it does to the next one. */
export function Shape({ feature }) {
  const { histogram, logits, max, mean, typical, fired, dead, tokens } = feature;
  if (dead) return html`<p class="card">It never fires on the text that was read: it may be dead, or what it stands for was not there.</p>`;
  const facts = [["Fires on", `${density(feature.density)} of the tokens`], ["Times", count(fired)], ["Max", number(max, 2)], ["Mean", number(mean, 2)], ["Typical", typical > 0 ? number(typical, 2) : "—"]];
  return html`<section class="card" aria-labelledby="shape"><h3 id="shape">What it does</h3>
    <dl class="facts">${facts.map(([term, value]) => html`<div key=${term}><dt><${Term} of=${TERMS[term] ?? term}>${term}</${Term}></dt><dd>${value}</dd></div>`)}</dl>
    <div class="shape">
      <div><h4>Activations</h4><${Bars} counts=${histogram.counts} edges=${histogram.edges} label="How many activations are how strong" />
        <h4>Fires on these tokens</h4><${OnTokens} tokens=${tokens.slice(0, TOKENS)} /></div>
      ${logits
        ? html`<${Logits} title="Promotes" some=${logits.top} /><${Logits} title="Suppresses" some=${logits.bottom} />`
        : html`<p class="details">What it does to the next token is not known: this SAE does not rebuild the residual stream.</p>`}
    </div>
  </section>`;
}

/** Its share of what a feature fires on as a bar, and on how many of that token it does. */
function OnTokens({ tokens }) {
  return html`<ul class="amounts" aria-label="Tokens it fires on">${tokens.map((one) => html`<li key=${one.id}
    title=${`${count(one.fired)} times, ${share(one.share)} of its firings; it fires on ${share(one.rate)} of all of them`}>
    <code>${shownToken(one.text)}</code><span class="amount" style=${{ "--part": one.share }}></span><span class="figure">${share(one.share)}</span></li>`)}</ul>`;
}

/** Tokens whose logit it changes most. */
function Logits({ title, some }) {
  const most = Math.max(...some.map((one) => Math.abs(one.value)), 1e-9);
  return html`<div><h4>${title}</h4><ul class="amounts" aria-label=${title}>${some.slice(0, TOKENS).map((one) => html`<li key=${one.id}>
    <code>${shownToken(one.text)}</code><span class="amount" style=${{ "--part": Math.abs(one.value) / most }}></span><span class="figure">${number(one.value, 2)}</span></li>`)}</ul></div>`;
}
