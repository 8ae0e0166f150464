import { useState } from "preact/hooks";
import { said, submit } from "../api.js";
import { go } from "../route.js";
import { artifacts } from "../state.js";
import { Command } from "../ui/command.js";
import { Act } from "../ui/do.js";
import { html } from "../ui/html.js";
import { Term } from "../ui/term.js";

/** What stands in an empty studio: the whole way in one click, on a model and a text that need no download. */
export function FirstVisit() {
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  const begin = async () => {
    setBusy(true);
    try {
      const { demo } = await import("../lib/demo.js");
      for (const spec of demo((noun, name) => artifacts[noun].value.has(name))) await submit(spec);
      go("jobs");
    } catch (error) {
      setFailed(said(error));
      setBusy(false);
    }
  };
  return html`<section class="card first-visit" aria-labelledby="first-visit">
    <h3 id="first-visit">New here?</h3>
    <p>A sparse autoencoder (<${Term} of="SAE" />) takes a model's <${Term} of="activations" /> apart into <${Term} of="features" /> that
    a person can read. The bundled model goes the whole way in a few minutes, without a download: a text,
    its <${Term} of="tokenization" />, an SAE, its features and their labels; <${Term} of="steering" /> with them is next.</p>
    <p class="verbs"><${Act} class="first" disabled=${busy} onClick=${begin}>Try it on the bundled model</${Act}></p>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    <${Command} line="mistudio demo" />
  </section>`;
}
