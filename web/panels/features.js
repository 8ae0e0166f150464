import { useEffect, useRef, useState } from "preact/hooks";
import { place } from "../lib/route.js";
import { show } from "../route.js";
import { jobs, newest, phase } from "../state.js";
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
  const first = useRef(null); // stays when another SAE comes
  if (!name) first.current ??= saes[0]?.name;
  const sae = saes.find((one) => one.name === (name ?? first.current)) ?? (name ? undefined : saes[0]);
  if (!sae) return html`<${None} name=${name} />`;
  const [index, b] = [Number(what), Number(other ?? 0)];
  if (what === "inspect") return html`<${InspectText} sae=${sae} key=${sae.name} />`;
  if (what === undefined) return html`<${List} saes=${saes} sae=${sae} query=${query} key=${sae.name} />`;
  const no = [[index, what], [b, other]].find(([n]) => !Number.isInteger(n) || n < 0);
  if (no) return html`<${None} name=${name} what=${no[1]} />`;
  if (other !== undefined) return html`<${Compared} sae=${sae} a=${index} b=${b} query=${query} />`;
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
  const [turn, setTurn] = useState(0);
  const again = () => {
    setFound(({ total }) => ({ total }));
    setTurn((n) => n + 1);
  };
  const isLost = phase.value !== "live";
  useEffect(() => {
    if (!isLost && found.failed && !has) again();
  }, [isLost]);
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
    ${found.failed && has && !found.isMissing && html`<p class="refusal" role="alert">${found.failed} <button onClick=${again}>Try again</button></p>`}
    ${found.failed && (!has || found.isMissing)
      ? html`<${Missing} sae=${sae} why=${found.failed} canExtract=${found.isMissing} extract=${() => setDialog("extract")} again=${again} query=${query} />`
      : html`<${FeatureList} sae=${sae} query=${query} found=${found} setFound=${setFound} key=${`${extraction} ${turn}`} />`}
  </${Panel}>`;
}

/** Why there is no list; where no features were extracted yet, the button that does that. */
function Missing({ sae, why, canExtract, extract, again, query }) {
  return html`<${Empty} line=${canExtract ? `mistudio feature extract ${sae.name}` : null}>${why}</${Empty}>
    <p class="verbs">${canExtract
      ? html`<button class="first" onClick=${extract}>Extract the features of ${sae.name}</button>`
      : html`<button onClick=${again}>Try again</button>
        ${(query.filter || query.sort || query.q) && html`<button onClick=${() => { show({ filter: "", sort: "", q: "", at: "" }); again(); }}>Clear the filters</button>`}`}</p>`;
}
