import { artifacts, jobs } from "../state.js";
import { Compared } from "./compared.js";
import { Sae } from "./sae.js";
import { SaeList } from "./sae_list.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";

/** The SAEs there are; or the one that is open; or what comparing some has found. */
export function Saes({ open, query }) {
  const [name, job] = open;
  if (name === "compare" && job) return html`<${Compared} id=${Number(job)} key=${job} />`;
  if (!name) return html`<${SaeList} query=${query} />`;
  const sae = artifacts.sae.value.get(name);
  if (sae) return html`<${Sae} sae=${sae} key=${sae.id} />`;
  const making = [...jobs.value.values()].some((one) => one.makes?.names.includes(name));
  return html`<${Panel} title=${name} verbs=${html`<a href=${place("saes")}>All SAEs</a>`}>
    <p class="empty">${making ? "There is no such SAE yet: the job that makes it has not come to its end." : "There is no SAE of that name here."}</p></${Panel}>`;
}
