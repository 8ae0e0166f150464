import { useState } from "preact/hooks";
import { number } from "../lib/format.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";
import { Tokens } from "../ui/tokens.js";
import { NotRead, texts, useReading } from "./feature_reading.js";

/** A person's own texts, read by the model; those read before are shaded for each feature that is opened. */
export function Try({ sae, feature }) {
  const [text, setText] = useState("");
  const reading = useReading(sae);
  const submit = async (event) => {
    event.preventDefault();
    if (await reading.read(text)) setText("");
  };
  const value = (token) => token.features.find((one) => one.index === feature.index)?.value ?? 0;
  const before = (texts.value.get(sae.id) ?? []).filter((one) => feature.density <= one.limit);
  return html`<section class="card" aria-labelledby="try"><h3 id="try">Try your own text</h3>
    <form class="joined" onSubmit=${submit}><textarea rows="2" aria-label="Text" required value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
      <button type="submit" disabled=${reading.busy}>${reading.busy ? "Reading…" : "Read"}</button></form>
    <${NotRead} reading=${reading} />
    ${before.length > 0 && html`<ul class="tried" aria-label="Your texts">${before.map((one) => {
      const values = one.tokens.map(value);
      const most = Math.max(...values, 0);
      return html`<li class="example" key=${one.text}><p class="figure"><b>${number(most, 2)}</b><br /><span class="details">max</span></p>
        <p><${Tokens} texts=${one.tokens.map((token) => token.text)} values=${values} most=${feature.max || most} breaks=${true} /></p></li>`;
    })}</ul>
    <p class="details"><a href=${place("features", [sae.name, "inspect"])}>All features of your texts</a></p>`}
  </section>`;
}
