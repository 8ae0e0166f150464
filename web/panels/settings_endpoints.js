import { useState } from "preact/hooks";
import { ApiError, get, patch, put, said } from "../api.js";
import { count } from "../lib/format.js";
import { Sure } from "../ui/dialog.js";
import { useModels } from "../ui/endpoint.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";
import { Key } from "./settings_keys.js";

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const FIELDS = [
  { name: "name", label: "Name", help: "in lower case, as labels will say who gave them", needed: true },
  { name: "url", label: "Address", help: "the base of its API, such as http://127.0.0.1:11434/v1", needed: true },
  { name: "key", label: "Key", kind: "secret", help: "kept on the studio's machine and never shown; leave it empty where none is needed" },
];

/** The servers with an LLM that may be asked: which there are, whether they answer, their keys. */
export function Endpoints({ setting, defaults, endpoints, secrets, changed }) {
  const [adding, setAdding] = useState(false);
  const [going, setGoing] = useState(null);
  const [failed, setFailed] = useState("");
  const columns = [
    ["Name", "name", (one) => one.name],
    ["Address", "code", (one) => html`${one.url} ${one.on_this_machine && html`<span class="help">on this machine</span>`}`],
    ["Key", "text", (one) => (one.secret_name ? html`<${Key} name=${one.secret_name} of=${one.name} secrets=${secrets} changed=${changed} />` : "cannot have one")],
    ["Does it answer?", "text", (one) => html`<${Answer} key=${one.url} name=${one.name} />`],
    ["", "verbs", (one) => setting.changeable && html`<button class="quiet" aria-label=${`Remove the endpoint ${one.name}`} onClick=${() => setGoing(one)}>Remove</button>`],
  ];
  const keep = (list, more = {}) => patch("/api/settings", { endpoints: list.map(({ name, url }) => `${name}=${url}`).join(","), ...more });
  const add = async ({ name, url, key }) => {
    await keep([...endpoints.filter((one) => one.name !== name), checked(name, url)]).catch((error) => {
      throw error instanceof ApiError ? new ApiError(error.status, error.message, { url: error.message }) : error;
    });
    if (key) await keepKey(name, key);
    changed();
  };
  const drop = () => {
    const others = defaults.value === going.name ? { label_endpoint: "tokens", label_model: "" } : {};
    keep(endpoints.filter(({ name }) => name !== going.name), others).then(() => {
      setGoing(null);
      setFailed("");
      changed();
    }, (error) => setFailed(said(error)));
  };
  return html`<section aria-labelledby="endpoints"><h3 id="endpoints">Endpoints that may be asked for labels</h3>
    ${endpoints.length ? html`<${Table} label="Endpoints" columns=${columns} rows=${endpoints} />` : html`<p class="empty">There is none: labels come from the tokens alone.</p>`}
    ${setting.changeable
      ? html`<p class="verbs"><button onClick=${() => setAdding(true)}>Add endpoint</button></p>`
      : html`<p class="help">They are set by ${setting.where}: change them there.</p>`}
    ${adding && html`<${Form} title="Add an endpoint" verb="Add" fields=${FIELDS} send=${add} onClose=${() => setAdding(false)} />`}
    ${going && html`<${Sure} title=${`Remove the endpoint ${going.name}?`} verb="Remove" failed=${failed} onYes=${drop} onClose=${() => setGoing(null)}
      loses="Jobs that are to ask it and have not begun will fail. Its key stays until it is forgotten, and labels that it gave stay." />`}
  </section>`;
}

/** Raises what is wrong with the name; the studio says what is wrong with the address. */
function checked(name, url) {
  const wrong = (field, message) => {
    throw new ApiError(400, message, { [field]: message });
  };
  if (!NAME.test(name)) wrong("name", "must be lower-case letters, digits, and . _ - between them");
  if (url.includes(",")) wrong("url", "must have no comma in it");
  return { name, url };
}

/** The key of an endpoint that is there now, at the field where it was typed if that fails. */
async function keepKey(name, value) {
  const { endpoints } = await get("/api/endpoints");
  const { secret_name } = endpoints.find((one) => one.name === name);
  await put(`/api/secrets/${encodeURIComponent(secret_name)}`, { value }).catch((error) => {
    throw error instanceof ApiError ? new ApiError(error.status, error.message, { key: error.fields.value ?? error.message }) : error;
  });
}

function Answer({ name }) {
  const { busy, models, failed, ask } = useModels(name);
  return html`<button aria-label=${`Try ${name}`} disabled=${busy} onClick=${ask}>${busy ? "Asking…" : "Try"}</button>
    <div role="status">${models && (models.length ? html`<details><summary>Yes, ${count(models.length)} models</summary>
      <ul class="plainlist">${models.map((one) => html`<li key=${one}><code>${one}</code></li>`)}</ul></details>` : "Yes, but it lists no model.")}</div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}`;
}
