import { place } from "../lib/route.js";
import { useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Table } from "../ui/table.js";
import { Devices, ThisBrowser } from "./settings_devices.js";
import { Endpoints } from "./settings_endpoints.js";
import { Keys } from "./settings_keys.js";
import { Labels, Offline, TextSetting } from "./settings_one.js";

const SOURCES = { kept: "set here", default: "the default" };
const ALL = [
  ["Setting", "code", (one) => one.name],
  ["Value", "text", (one) => (one.value === "" ? "—" : `${one.value}`)],
  ["From", "text", (one) => one.where ?? SOURCES[one.source]],
  ["What it is", "text", (one) => one.help],
];

/** What can be changed while the studio runs; the rest as it was set when it was started. */
export function Settings() {
  const { found, failed, again } = useLoaded("/api/settings");
  const { found: known, again: askedAgain } = useLoaded("/api/endpoints", found);
  const { found: secrets, failed: hidden, again: keysAgain } = useLoaded("/api/secrets", found);
  const way = html`<a class="button" href=${place("system")}>System</a>`;
  if (!found) return html`<${Panel} title="Settings" verbs=${way}>${failed ? html`<p class="refusal" role="alert">${failed}</p>` : html`<p class="empty late">Asking the studio how it is set.</p>`}</${Panel}>`;
  const of = Object.fromEntries(found.settings.map((one) => [one.name, one]));
  const endpoints = known?.endpoints ?? [];
  const changed = () => [again, askedAgain, keysAgain].forEach((ask) => ask());
  return html`<${Panel} title="Settings" verbs=${way}>
    <p class="help">What is changed here is kept in the data folder and holds for jobs and sessions that start from then on.</p>
    <${Endpoints} setting=${of.endpoints} defaults=${of.label_endpoint} endpoints=${endpoints} secrets=${secrets?.secrets} changed=${changed} />
    <${Keys} endpoints=${endpoints} secrets=${secrets?.secrets} failed=${hidden} changed=${changed} />
    <${ThisBrowser} /><${Devices} />
    <section aria-labelledby="labels"><h3 id="labels">Labels begin with</h3>
      <${Labels} endpoint=${of.label_endpoint} model=${of.label_model} endpoints=${endpoints} changed=${again} /></section>
    <section aria-labelledby="reach"><h3 id="reach">Elsewhere</h3>
      <div class="card"><${Offline} one=${of.offline} changed=${again} />
        <${TextSetting} one=${of.neuronpedia_url} label="Neuronpedia's address" changed=${again} /></div></section>
    <section aria-labelledby="sessions"><h3 id="sessions">Sessions</h3>
      <div class="card"><${TextSetting} one=${of.session_keep_alive} label="How long one stays that nobody uses" changed=${again} /></div></section>
    <section aria-labelledby="all"><h3 id="all">All of them</h3>
      <p class="help">The others are set when the daemon is started: by a flag, a variable or its file.</p>
      <details><summary>Show ${found.settings.length} settings</summary><${Table} label="Settings" columns=${ALL} rows=${found.settings} /></details></section>
  </${Panel}>`;
}
