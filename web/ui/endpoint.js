import { useEffect, useState } from "preact/hooks";
import { post, said } from "../api.js";
import { useLoaded } from "./asked.js";
import { html } from "./html.js";

/**
 * The models of an endpoint, once it is asked: whether it answers, and what there is to choose from.
 * @param {string} name what the settings call it
 * @returns {{busy?: boolean, models?: string[], failed?: string, ask: () => void}}
 */
export function useModels(name) {
  const [answer, setAnswer] = useState(/** @type {{of: string | null, busy?: boolean, models?: string[], failed?: string}} */ ({ of: null }));
  const ask = async () => {
    setAnswer({ of: name, busy: true });
    try {
      const { models } = await post(`/api/endpoints/${encodeURIComponent(name)}/models`);
      setAnswer({ of: name, models });
    } catch (error) {
      setAnswer({ of: name, failed: said(error) });
    }
  };
  const { of, ...known } = answer;
  return { ...(of === name ? known : {}), ask };
}

/** What a button that asks an endpoint for its models has found; `found`: told their names. */
export function ListModels({ name, found }) {
  const { busy, models, failed, ask } = useModels(name);
  useEffect(() => found(models ?? []), [models]);
  return html`<p class="verbs"><button type="button" disabled=${busy} onClick=${ask}>${busy ? "Asking…" : `List the models of ${name}`}</button>
      <span role="status" class="help">${models && `${models.length} models, to choose from in the field above`}</span></p>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}`;
}

/** What forms for labels begin with, as the settings say: `{endpoint, model}`; null before the studio has answered. */
export function useLabelDefaults() {
  const { found, failed } = useLoaded("/api/settings");
  if (failed) return { endpoint: "tokens", model: "" };
  if (!found) return null;
  const of = (name) => found.settings.find((one) => one.name === name).value;
  const [endpoint, model] = [of("label_endpoint"), of("label_model")];
  const isThere = of("endpoints").split(",").some((one) => one.split("=")[0].trim() === endpoint); // they may be set elsewhere
  return isThere ? { endpoint, model } : { endpoint: "tokens", model: "" };
}
