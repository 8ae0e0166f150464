import { useState } from "preact/hooks";
import { ApiError, post, remove, said } from "../api.js";
import { saidEdits } from "../lib/edits.js";
import { useLoaded } from "../ui/asked.js";
import { Copy } from "../ui/copy.js";
import { Dialog, Sure } from "../ui/dialog.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";

/** Edits kept under a name: saved, loaded, used from any OpenAI client. Those of the model that is steered. */
export function Profiles({ desk, model, load }) {
  const [turn, setTurn] = useState(0);
  const [saving, setSaving] = useState(false);
  const { found, failed } = useLoaded("/api/profiles", turn);
  const name = desk.sae.model?.name;
  const own = (found?.profiles ?? []).filter((one) => one.model === name);
  const changed = () => setTurn((was) => was + 1);
  return html`<section class="profiles" aria-label="Profiles">
    <div class="head"><h3>Profiles</h3><p class="details">Edits kept under a name; /v1 serves each as a model of its own.</p>
      <button type="button" disabled=${!desk.ready} title=${desk.ready ? undefined : "Choose a feature first"} onClick=${() => setSaving(true)}>Save as profile</button></div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${own.length > 0 && html`<ul class="rows">${own.map((one) => html`<${Profile} key=${one.name} profile=${one} sae=${desk.sae.name} model=${model} prompt=${desk.prompt} load=${load} changed=${changed} />`)}</ul>`}
    ${saving && html`<${Save} desk=${desk} known=${found?.profiles ?? []} changed=${changed} onClose=${() => setSaving(false)} />`}
  </section>`;
}

function Save({ desk, known, changed, onClose }) {
  const has = (name) => known.some((one) => one.name === name);
  const fields = [
    { name: "name", label: "Name", needed: true, help: "such as python+2: letters, digits, “.”, “_”, “+” and “-”" },
    { name: "note", label: "Note", kind: "area" },
    { name: "replace", label: "Replace the one of that name", kind: "switch", when: ({ name }) => has(name) },
  ];
  const send = ({ name, note, replace }) => post("/api/profiles", { name, note: note ?? null, replace: replace ?? false, steering: desk.steering }).then(changed, (error) => {
    if (error instanceof ApiError && error.status === 409) throw new ApiError(409, error.message, { name: error.message });
    throw error;
  });
  return html`<${Form} title="Save as profile" verb="Save" fields=${fields} send=${send} onClose=${onClose}>
    <p class="details">${saidEdits(desk.steering, desk.sae.name)}</p></${Form}>`;
}

function Profile({ profile, sae, model, prompt, load, changed }) {
  const [open, setOpen] = useState(null); // use or delete
  const [failed, setFailed] = useState(null);
  const { name, missing } = profile;
  const away = () => remove(`/api/profiles/${encodeURIComponent(name)}`).then(() => { setOpen(null); changed(); }, (error) => setFailed(said(error)));
  return html`<li class="kept profile">
    <div class="what"><b>${name}</b> <span class="details">${saidEdits(profile.steering, sae)}</span>
      ${profile.note && html`<p class="note">${profile.note}</p>`}
      ${missing.length > 0 && html`<p class="refusal">Not here any more: ${missing.join(", ")}.</p>`}</div>
    <code class="details">${profile.model}:${name}</code>
    <div class="verbs">
      <button type="button" class="quiet" aria-label=${`Load the profile ${name}`} disabled=${missing.length > 0} onClick=${() => load(profile.steering)}>Load</button>
      <button type="button" class="quiet" aria-label=${`Use ${name} from any OpenAI client`} onClick=${() => setOpen("use")}>Use elsewhere</button>
      <button type="button" class="quiet" aria-label=${`Delete the profile ${name}`} onClick=${() => setOpen("delete")}>Delete</button></div>
    ${open === "use" && html`<${Use} profile=${profile} model=${model} prompt=${prompt} onClose=${() => setOpen(null)} />`}
    ${open === "delete" && html`<${Sure} title=${`Delete the profile ${name}?`} verb="Delete" failed=${failed}
      loses=${`Programs that ask for the model ${profile.model}:${name} are refused from then on. Its features stay.`} onYes=${away} onClose=${() => setOpen(null)} />`}
  </li>`;
}

function Use({ profile, model, prompt, onClose }) {
  const id = `${profile.model}:${profile.name}`;
  const chat = model?.chat_template === true;
  const text = prompt || (chat ? "Write a tutorial about rivers." : "def read_lines(path):");
  return html`<${Dialog} title=${`Use ${profile.name} from any OpenAI client`} onClose=${onClose}>
    <p class="loses">The base URL is <code>${location.origin}/v1</code> and the model <code>${id}</code>; on this machine any key will do, elsewhere an access token is the key.</p>
    <${Snippet} title="curl" text=${curl(id, text, chat)} /><${Snippet} title="Python" text=${python(id, text, chat)} />
  </${Dialog}>`;
}

function curl(id, text, chat) {
  const body = { model: id, max_tokens: 60, ...(chat ? { messages: [{ role: "user", content: text }] } : { prompt: text }) };
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/${chat ? "chat/" : ""}completions -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

function python(id, text, chat) {
  const [ask, said] = chat
    ? [`client.chat.completions.create(\n    model=${JSON.stringify(id)}, max_tokens=60,\n    messages=[{"role": "user", "content": ${JSON.stringify(text)}}],\n)`, "message.content"]
    : [`client.completions.create(model=${JSON.stringify(id)}, prompt=${JSON.stringify(text)}, max_tokens=60)`, "text"];
  return `from openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1", api_key="none")\nanswer = ${ask}\nprint(answer.choices[0].${said})`;
}

function Snippet({ title, text }) {
  return html`<figure class="snippet"><figcaption><b>${title}</b><${Copy} text=${text} what=${`the ${title} lines`} /></figcaption>
    <pre tabindex="0">${text}</pre></figure>`;
}
