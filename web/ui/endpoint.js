import { useState } from "preact/hooks";
import { post } from "../api.js";
import { said } from "./form.js";

/**
 * The models of an endpoint, once it is asked: whether it answers, and what there is to choose from.
 * @param {string} name what the settings call it
 * @returns {{busy?: boolean, models?: string[], failed?: string, ask: () => void}}
 */
export function useModels(name) {
  const [answer, setAnswer] = useState({ of: null });
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
