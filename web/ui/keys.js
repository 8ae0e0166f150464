import { signal } from "@preact/signals";
import { meaning, step } from "../lib/keys.js";
import { kept } from "../kept.js";
import { follow, go } from "../route.js";
import { html } from "./html.js";
import { Later } from "./later.js";

const ROWS = "main :is(tbody tr, ul.rows > li, [role=row]:not(:has([role=columnheader])))";
const TYPED = "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=range])";

/** Whether the keys do anything. */
export const on = signal(kept("keys") !== "off");
const listed = signal(false);
let since = null; // when g was pressed (ms)

/** Listen to the keyboard for as long as the page is open. */
export function followKeys() {
  addEventListener("keydown", heard);
  addEventListener("keydown", behindG, true);
}

/** A letter behind g is for the page, also where the list that has the focus has one of its own for it. */
function behindG(event) {
  if (since === null || !isForThePage(event) || !meaning(event.key, performance.now(), since).does?.includes("panel")) return;
  event.stopPropagation();
  heard(event);
}

function isForThePage({ key, target, ctrlKey, altKey, metaKey, defaultPrevented }) {
  if (!on.value || defaultPrevented || ctrlKey || altKey || metaKey || key === "Shift") return false;
  return !target.closest?.(TYPED) && !document.querySelector("dialog[open]");
}

function heard(event) {
  if (!isForThePage(event)) return;
  const { key } = event;
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
  before: () => followed("main a[rel=prev]"),
  after: () => followed("main a[rel=next]"),
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

function followed(selector) {
  const found = document.querySelector(selector);
  if (found) follow(found);
  return found !== null;
}

/** The button that lists the keys, and the list. */
export function Keys() {
  const show = () => (listed.value = true);
  return html`<button class="quiet keys" title="the key ?" onClick=${show}>Keys</button>
    ${listed.value && html`<${Later} from=${() => import("./keys_list.js").then((found) => found.KeysList)} onClose=${() => (listed.value = false)} />`}`;
}
