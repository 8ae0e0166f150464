import { useRef, useState } from "preact/hooks";
import { post, remove, said } from "../api.js";
import { ago, joined } from "../lib/format.js";
import { login, slowClock } from "../state.js";
import { useLoaded } from "../ui/asked.js";
import { Command } from "../ui/command.js";
import { Dialog, Sure } from "../ui/dialog.js";
import { Form } from "../ui/form.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";
import { Paired } from "./settings_paired.js";

const DAY_S = 86_400;
const SCOPES = [["read", "only read"], ["write", "read and write: submit, change, remove"], ["admin", "do everything: also tokens, keys and settings"]];
const MAY = Object.fromEntries(SCOPES.map(([scope, words]) => [scope, words.split(":")[0]]));
const SCOPE = { name: "scope", label: "It may", kind: "choice", choices: SCOPES };
const LASTS = {
  name: "expires_in_s", label: "It is good", kind: "choice",
  choices: [["", "until it is revoked"], ["86400", "for a day"], ["2592000", "for 30 days"], ["31536000", "for a year"]],
};
const NAME = { name: "name", label: "Name", help: "the machine or program that will use it, in lower case", needed: true };
const CALLED = { ...NAME, label: "Name of the device", help: "left empty, it is called what it calls itself", needed: false };

const asked = ({ expires_in_s: lasts, ...rest }) => ({ ...rest, ...(lasts ? { expires_in_s: Number(lasts) } : {}) });

/** This browser's own log-in; nothing where none was needed. */
export function ThisBrowser() {
  const [failed, setFailed] = useState("");
  if (!login.value?.browser) return null;
  const { name, expires_at: end } = login.value.token;
  const leave = () => post("/api/logout").then(() => location.replace("/login"), (error) => setFailed(said(error)));
  return html`<section aria-labelledby="browser"><h3 id="browser">This browser</h3>
    <div class="card session"><p>Logged in as <b>${name}</b>. <span class="help">${joined([`It may ${MAY[login.value.scope]}`, end && `until ${when(end)}`])}</span></p>
      <button type="button" onClick=${leave}>Log out</button></div>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}</section>`;
}

/** Whoever is let in from elsewhere, and ways to let in more: an administrator's affair. */
export function Devices() {
  const isAdmin = login.value?.scope === "admin";
  const { found, failed, again } = useLoaded(isAdmin ? "/api/tokens" : null);
  const [open, setOpen] = useState(/** @type {any} */ (null)); // "pair", "make", {code …}, {token …} or {revoked}
  const close = () => setOpen(null);
  const shown = (one) => {
    setOpen(one);
    again();
  };
  if (!isAdmin) return null;
  const tokens = found?.tokens ?? [];
  return html`<section aria-labelledby="devices"><h3 id="devices">Devices and access tokens</h3>
    ${failed && html`<p class="refusal" role="alert">${failed}</p>`}
    ${tokens.length ? html`<${Table} label="Devices and access tokens" columns=${columns(setOpen)} rows=${tokens} of=${(one) => one.id} />`
      : found && html`<p class="empty">There is none: only this machine reaches the studio.</p>`}
    <p class="verbs"><button onClick=${() => setOpen("pair")}>Pair a device</button> <button onClick=${() => setOpen("make")}>Make a token</button></p>
    <p class="help">A device or browser is paired by a code that is typed there; a program is given a token.</p>
    ${open === "pair" && html`<${Asked} title="Pair a device" verb="Make a code" path="/api/pairings" fields=${[CALLED, SCOPE, LASTS]} onClose=${close} made=${shown} />`}
    ${open === "make" && html`<${Asked} title="Make a token" verb="Make it" path="/api/tokens" fields=${[NAME, SCOPE, LASTS]} onClose=${close} made=${shown} />`}
    ${open?.code && html`<${Paired} pairing=${open} onClose=${() => shown(null)} />`}
    ${open?.token && html`<${Made} made=${open} onClose=${close} />`}
    ${open?.revoked && html`<${Revoke} token=${open.revoked} onClose=${close} revoked=${() => shown(null)} />`}</section>`;
}

const columns = (setOpen) => [
  ["Name", "name", (one) => html`${one.name} ${isThis(one) && html`<span class="help">this browser</span>`}`],
  ["May", "text", (one) => MAY[one.scope]],
  ["Made", "text", (one) => ago(one.created_at, slowClock.value)],
  ["Last used", "text", (one) => (one.last_used_at ? ago(one.last_used_at, slowClock.value) : "not yet")],
  ["Ends", "text", (one) => (!one.expires_at ? "when revoked" : isOver(one) ? "has expired" : when(one.expires_at))],
  ["", "verbs", (one) => html`<button class="quiet" aria-label=${`Revoke ${one.name}`} onClick=${() => setOpen({ revoked: one })}>Revoke</button>`],
];

const isThis = (one) => login.value.browser && one.id === login.value.token.id;
const isOver = (one) => Date.parse(one.expires_at) <= slowClock.value;

/** A moment within a day by the clock, else its day. */
function when(iso) {
  const [at, near] = [new Date(iso), Date.parse(iso) - slowClock.value < DAY_S * 1000];
  return near ? at.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" })
    : at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

/** A form whose answer is shown in its place: it holds what is shown but once. */
function Asked({ path, made, onClose, ...form }) {
  const answer = useRef(null);
  const send = async (values) => {
    answer.current = await post(path, asked(values));
  };
  const closed = () => (answer.current ? made(answer.current) : onClose());
  return html`<${Form} ...${form} start=${{ scope: "write", expires_in_s: "" }} send=${send} onClose=${closed} />`;
}

function Made({ made, onClose }) {
  return html`<${Dialog} title=${`Token of ${made.name}`} onClose=${onClose}>
    <p>It is shown this once: put it where it is needed. It may <b>${MAY[made.scope]}</b>.</p>
    <${Command} line=${made.token} />
    <footer class="verbs"><button type="button" class="first" data-first onClick=${onClose}>I have it</button></footer>
  </${Dialog}>`;
}

function Revoke({ token, revoked, onClose }) {
  const [failed, setFailed] = useState("");
  const go = () => remove(`/api/tokens/${token.id}`).then(() => (isThis(token) ? location.replace("/login") : revoked()), (error) => setFailed(said(error)));
  const loses = isThis(token) ? "It is this browser's own: you are logged out." : "Whatever uses it is refused from then on, and its open pages are logged out.";
  return html`<${Sure} title=${`Revoke ${token.name}?`} verb="Revoke" loses=${loses} failed=${failed} onYes=${go} onClose=${onClose} />`;
}
