import { keep } from "../kept.js";
import { KEYS } from "../lib/keys.js";
import { Dialog } from "./dialog.js";
import { html } from "./html.js";
import { on } from "./keys.js";

/** All keys, and the switch that turns them off. */
export function KeysList({ onClose }) {
  const set = ({ target }) => {
    on.value = target.checked;
    keep("keys", target.checked ? null : "off");
  };
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <p class="field switched"><input type="checkbox" id="keys-on" checked=${on.value} onChange=${set} />
      <label for="keys-on">On, except while something is typed</label></p>
    <dl class="keylist" tabindex="-1" data-first>${KEYS.map(({ keys, does }) => html`<div key=${does}>
      <dt>${keys.map((key) => html`<kbd key=${key}>${key}</kbd> `)}</dt><dd>${does}</dd></div>`)}</dl>
  </${Dialog}>`;
}
