import { useState } from "preact/hooks";
import { put, remove, said } from "../api.js";
import { ago } from "../lib/format.js";
import { slowClock } from "../state.js";
import { Sure } from "../ui/dialog.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

const OTHERS = [
  ["hf", "the Hub", "models and datasets that are private or gated, and publishing"],
  ["neuronpedia", "Neuronpedia", "putting features there"],
];
const FROM = { credentials: "systemd's credentials", environment: "the daemon's environment" };

/** Keys besides those of endpoints. They go in and never come out. */
export function Keys({ endpoints, secrets, failed, changed }) {
  const theirs = new Set(endpoints.map(({ secret_name }) => secret_name));
  const known = new Set(OTHERS.map(([name]) => name));
  const left = (secrets ?? []).filter(({ name }) => !theirs.has(name) && !known.has(name));
  const rows = [...OTHERS.map(([name, of, use]) => ({ name, of, use })), ...left.map(({ name }) => ({ name, of: name, use: "no endpoint here" }))];
  const columns = [
    ["For", "name", (one) => one.of],
    ["Needed for", "text", (one) => one.use],
    ["Key", "text", (one) => html`<${Key} name=${one.name} of=${one.of} secrets=${secrets} changed=${changed} />`],
  ];
  return html`<section aria-labelledby="keys"><h3 id="keys">Keys</h3>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    <${Table} label="Keys" columns=${columns} rows=${rows} />
    <p class="help">A key is kept on the studio's machine, readable by its user alone, and never shown.</p></section>`;
}

/** Whether a key is set; and the buttons that set, replace or forget it. `of`: whose it is, in words. */
export function Key({ name, of, secrets, changed }) {
  const [asked, setAsked] = useState(""); // "set" or "forget"
  const [failed, setFailed] = useState("");
  const found = secrets?.find((one) => one.name === name);
  const state = !secrets ? "—" : !found ? "not set" : found.source === "file" ? `set ${ago(found.set_at, slowClock.value)}` : `set by ${FROM[found.source]}`;
  const path = `/api/secrets/${encodeURIComponent(name)}`;
  const close = () => {
    setAsked("");
    setFailed("");
  };
  const forget = () => remove(path).then(() => {
    close();
    changed();
  }, (error) => setFailed(said(error)));
  return html`<span class="key">${state}
    ${secrets && html`<button class="quiet" aria-label=${`${found ? "Replace" : "Set"} the key for ${of}`} onClick=${() => setAsked("set")}>${found ? "Replace" : "Set"}</button>`}
    ${found?.source === "file" && html`<button class="quiet" aria-label=${`Forget the key for ${of}`} onClick=${() => setAsked("forget")}>Forget</button>`}</span>
    ${asked === "set" && html`<${Form} title=${`Key for ${of}`} verb="Keep" onClose=${close} send=${(values) => put(path, values).then(changed)}
      fields=${[{ name: "value", label: "Key", kind: "secret", needed: true, help: "It is never shown again." }]} />`}
    ${asked === "forget" && html`<${Sure} title=${`Forget the key for ${of}?`} verb="Forget" failed=${failed} onYes=${forget} onClose=${close}
      loses="The studio cannot show it: whoever needs it again has to bring it." />`}`;
}
