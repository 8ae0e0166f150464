import { useEffect, useState } from "preact/hooks";
import { listed, rowAt } from "../lib/feature_words.js";
import { count } from "../lib/format.js";
import { place } from "../lib/route.js";
import { jobs, labelled } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Examples } from "./feature_examples.js";
import { extracted } from "./feature_jobs.js";
import { Called } from "./feature_label.js";
import { Marks } from "./feature_marks.js";
import { Neighbours } from "./feature_neighbours.js";
import { Places } from "./feature_places.js";
import { Shape } from "./feature_shape.js";
import { Try } from "./feature_try.js";

const AROUND = 50; // features of a list that are known at once, so that keys are followed without a wait

/** One feature: what is said of it on the left, what it does and where it fires on the right. */
export function Feature({ sae, index, query }) {
  const at = `/api/saes/${sae.id}/features/${index}`;
  const { found, failed, again } = useLoaded(at, `${labelled.value.get(sae.name)} ${extracted(jobs.value, sae.name)}`);
  const [last, setLast] = useState(null); // stays until the next has come
  useEffect(() => found && setLast(found), [found]);
  const feature = found ?? last;
  const way = useWay(sae, index, query);
  const link = (one, rel, words) =>
    one && html`<a class="button" rel=${rel} title=${`the key ${rel === "prev" ? "[" : "]"}`} href=${place("features", [sae.name, one.index], one.query)}>${words}</a>`;
  const verbs = html`
    ${!failed && html`<a class="button first" href=${place("steering", [sae.name], { features: index })}>Steer with this</a>`}
    ${link(way.before, "prev", "Previous")} ${link(way.after, "next", "Next")}
    <a href=${place("features", [sae.name], query)}>All features</a>`;
  return html`<${Panel} title=${`Feature ${index} of ${sae.name}`} verbs=${verbs}>
    ${way.told && html`<p class="details">${way.told}</p>`}
    ${failed && html`<p class="refusal" role="alert">${failed}</p><p class="verbs"><button onClick=${again}>Try again</button></p>`}
    ${feature && (feature.index === index || !failed) && html`<div class="panes" aria-busy=${feature.index !== index}>
      <div>
        <${Called} sae=${sae} feature=${feature} changed=${again} key=${feature.index} />
        <${Marks} sae=${sae} feature=${feature} changed=${again} key=${`marks ${feature.index}`} />
        <${Neighbours} sae=${sae} feature=${feature} />
      </div>
      <div>
        <${Shape} feature=${feature} />
        <${Try} sae=${sae} feature=${feature} />
        <${Examples} sae=${sae} feature=${feature} key=${feature.index} />
        <${Places} sae=${sae} feature=${feature} key=${`places ${feature.index}`} />
      </div>
    </div>`}
  </${Panel}>`;
}

/** What comes before and after it: in the list that it was opened from if it still stands there, else by number. */
function useWay(sae, index, query) {
  const at = rowAt(query);
  const first = Math.max(Math.floor(at / AROUND) * AROUND - 1, 0);
  const wanted = at < 0 ? null : `/api/saes/${sae.id}/features?${listed(query)}&limit=${AROUND + 2}&cursor=${first}`;
  const { found, failed } = useLoaded(wanted);
  const here = found?.features.findIndex((one) => one.index === index) ?? -1;
  if (at >= 0 && !found && !failed) return {};
  if (here < 0) {
    const by = (other) => (other < 0 || other >= sae.width ? null : { index: other, query: { ...query, at: "" } });
    return { before: by(index - 1), after: by(index + 1) };
  }
  const by = (n) => found.features[n] && { index: found.features[n].index, query: { ...query, at: first + n } };
  return { before: by(here - 1), after: by(here + 1), told: `${count(first + here + 1)} of ${count(found.total)} in the list` };
}
