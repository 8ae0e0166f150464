import { useEffect, useState } from "preact/hooks";
import { place } from "../lib/route.js";
import { jobs, newest } from "../state.js";
import { html } from "../ui/html.js";
import { Empty, Panel } from "../ui/panel.js";
import { Compared } from "./feature_compared.js";
import { ExtractFeatures } from "./feature_extract.js";
import { Filters } from "./feature_filters.js";
import { FeatureJobs, extracted } from "./feature_jobs.js";
import { FeatureList } from "./feature_list.js";
import { Feature } from "./feature.js";
import { InspectText } from "./feature_inspect.js";
import { LabelFeatures } from "./label.js";
import { ScoreLabels } from "./score.js";

/** The features of an SAE: all of them in a list, one that is open, two side by side, or those that fire on a text. */
export function Features({ open, query }) {
  const saes = newest("sae");
  const [name, what, other] = open;
  const sae = name ? saes.find((one) => one.name === name) : saes[0];
  if (!sae) return html`<${None} name=${name} />`;
  const index = Number(what);
  if (what === "inspect") return html`<${InspectText} sae=${sae} key=${sae.name} />`;
  if (what === undefined) return html`<${List} saes=${saes} sae=${sae} query=${query} key=${sae.name} />`;
  if (!Number.isInteger(index) || index < 0) return html`<${None} name=${name} what=${what} />`;
  if (other !== undefined) return html`<${Compared} sae=${sae} a=${index} b=${Number(other)} query=${query} />`;
  return html`<${Feature} sae=${sae} index=${index} query=${query} key=${sae.name} />`;
}

function None({ name, what }) {
  const sentence = what
    ? `${name} has no feature ${what}: features have numbers.`
    : name ? `There is no SAE ${name}.` : "Features are what an SAE has learned; none is here yet. The demo makes one:";
  return html`<${Panel} title="Features"><${Empty} line=${name ? null : "mistudio demo"}>${sentence}</${Empty}>
    <p class="verbs"><a class="button first" href=${what ? place("features", [name]) : place("saes")}>${what ? `All features of ${name}` : "To the SAEs"}</a></p></${Panel}>`;
}

const DIALOGS = { label: LabelFeatures, score: ScoreLabels, extract: ExtractFeatures };

function List({ saes, sae, query }) {
  const [found, setFound] = useState(/** @type {{total: number | null, failed?: string, isMissing?: boolean}} */ ({ total: null }));
  const [dialog, setDialog] = useState(null);
  const Asked = DIALOGS[dialog];
  const extraction = extracted(jobs.value, sae.name);
  useEffect(() => setFound({ total: null }), [extraction]);
  const has = found.total !== null;
  const verbs = has && html`
    <a class="button" href=${place("features", [sae.name, "inspect"])}>Inspect a text</a>
    <button onClick=${() => setDialog("label")}>Label features</button>
    <button onClick=${() => setDialog("score")}>Score labels</button>
    <button onClick=${() => setDialog("extract")}>Extract again</button>
    <a class="button" href=${`/api/saes/${sae.id}/features/export`} download>Export (JSON lines)</a>`;
  return html`<${Panel} title="Features" verbs=${verbs}>
    ${Asked && html`<${Asked} sae=${sae} query=${query} found=${found} onClose=${() => setDialog(null)} />`}
    <${FeatureJobs} sae=${sae} />
    <${Filters} saes=${saes} sae=${sae} query=${query} total=${found.total} />
    ${found.failed
      ? html`<${Missing} sae=${sae} why=${found.failed} canExtract=${found.isMissing} extract=${() => setDialog("extract")} again=${() => setFound({ total: null })} />`
      : html`<${FeatureList} sae=${sae} query=${query} found=${found} setFound=${setFound} key=${extraction} />`}
  </${Panel}>`;
}

/** Why there is no list; where no features were extracted yet, the button that does that. */
function Missing({ sae, why, canExtract, extract, again }) {
  return html`<${Empty} line=${canExtract ? `mistudio feature extract ${sae.name}` : null}>${why}</${Empty}>
    <p class="verbs">${canExtract
      ? html`<button class="first" onClick=${extract}>Extract the features of ${sae.name}</button>`
      : html`<button onClick=${again}>Try again</button>`}</p>`;
}
