import { signal } from "@preact/signals";
import { KEYS, meaning, step } from "../lib/keys.js";
import { keep, kept } from "../kept.js";
import { go } from "../route.js";
import { Dialog } from "./dialog.js";
import { html } from "./html.js";

const ROWS = "main :is(tbody tr, ul.rows > li, [role=row]:not(:has([role=columnheader])))";
const TYPED = "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=range])";

const on = signal(kept("keys") !== "off");
const listed = signal(false);
let since = null; // when g was pressed (ms)

/** Listen to the keyboard for as long as the page is open. */
export function followKeys() {
  addEventListener("keydown", heard);
}

function heard(event) {
  const { key, target, ctrlKey, altKey, metaKey, defaultPrevented } = event;
  if (!on.value || defaultPrevented || ctrlKey || altKey || metaKey || key === "Shift") return;
  if (target.closest?.(TYPED) || document.querySelector("dialog[open]")) return;
  const found = meaning(key, performance.now(), since);
  since = found.since;
  if (found.does && DOES[found.does[0]](found.does[1]) !== false) event.preventDefault();
}

// Each answers false where there is nothing to do it to.
const DOES = {
  panel: (name) => go(name),
  search: () => focused("main input[type=search]"),
  down: () => row(1),
  up: () => row(-1),
  first: () => pressed("main .panel > header .verbs :is(button, a).first:not(:disabled)"),
  before: () => pressed("main a[rel=prev]"),
  after: () => pressed("main a[rel=next]"),
  keys: () => {
    listed.value = true;
  },
};

/** The next row whose link, or else whose first control, can be focused: Enter then does what it always does. */
function row(way) {
  const rows = [...document.querySelectorAll(ROWS)].filter(handle);
  if (!rows.length) return false;
  const at = rows.indexOf(document.activeElement?.closest(ROWS));
  handle(rows[step(at, way, rows.length)]).focus();
}

const handle = (one) => one.querySelector("a[href]") ?? one.querySelector("button:not(:disabled), summary, [tabindex='0']");

function focused(selector) {
  const found = document.querySelector(selector);
  found?.focus();
  found?.select();
  return found !== null;
}

function pressed(selector) {
  const found = document.querySelector(selector);
  found?.click();
  return found !== null;
}

/** The button that lists the keys, and the list. */
export function Keys() {
  const show = () => (listed.value = true);
  return html`<button class="quiet keys" title="the key ?" onClick=${show}>Keys</button>
    ${listed.value && html`<${List} />`}`;
}

function List() {
  const set = ({ target }) => {
    on.value = target.checked;
    keep("keys", target.checked ? null : "off");
  };
  return html`<${Dialog} title="Keys" onClose=${() => (listed.value = false)}>
    <p class="field switched"><input type="checkbox" id="keys-on" checked=${on.value} onChange=${set} />
      <label for="keys-on">On, except while something is typed</label></p>
    <dl class="keylist" tabindex="-1" data-first>${KEYS.map(([keys, does]) => html`<div key=${does}>
      <dt>${keys.map((key) => html`<kbd key=${key}>${key}</kbd> `)}</dt><dd>${does}</dd></div>`)}</dl>
  </${Dialog}>`;
}
