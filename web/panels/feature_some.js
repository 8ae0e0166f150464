import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { labelled } from "../state.js";

/** What a list says of some features, by their index; those that have not come are not in it. */
export function useSome(sae, indices) {
  const [known, setKnown] = useState(new Map());
  const asked = [...new Set(indices)].sort((a, b) => a - b).join(",");
  const news = labelled.value.get(sae.name);
  useEffect(() => {
    if (!asked) return;
    let wanted = true;
    get(`/api/saes/${sae.id}/features?limit=1000&filter=index:${asked}`).then(
      ({ features }) => wanted && setKnown(new Map(features.map((one) => [one.index, one]))),
      () => {}, // they are shown by number then
    );
    return () => (wanted = false);
  }, [sae.id, asked, news]);
  return known;
}

/** What a feature is called in a line: its label, else the tokens that it fires on most. */
export const calledIn = (one) => one?.label?.text ?? (one?.dead ? "dead" : (one?.tokens ?? []).join(" "));
