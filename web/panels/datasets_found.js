import { count, size } from "../lib/format.js";
import { html } from "../ui/html.js";

const ROWS = 3;
const CHARS = 300; // of a row

/** What there is to choose of it, by the names of the fields. */
export const chosenOf = ({ configs, config, splits, text_columns: texts }) => [
  configs?.length > 0 && (configs.length > 1 || !config) && "config",
  configs?.length > 0 && splits?.length > 1 && "split",
  texts?.length > 1 && "text_column",
].filter(Boolean);

/**
 * What there is at a source, nothing of which is stored yet: how much it is, its choices as fields, and its first rows.
 * `field`: draws one; `look`: looks again, with what was chosen.
 */
export function Found({ found, values, field, look }) {
  const { configs, splits, text_columns: texts } = found;
  const facts = [
    ["Documents", found.documents != null && count(found.documents)],
    ["Size", found.bytes != null && size(found.bytes)],
    ["Files", found.files > 1 && count(found.files)],
    ["Licence", found.licence],
    ["Revision", found.revision && html`<code title=${found.revision}>${found.revision.slice(0, 12)}</code>`],
  ].filter(([, value]) => value);
  const usual = found.text_column ? `${found.text_column} (found by itself)` : "say which";
  const columns = texts?.length ? found.columns.map(({ name }) => name).filter((name) => !texts.includes(name)) : [];
  const chosen = chosenOf(found);
  return html`<div class="found" role="group" aria-label="What is there">
    <dl class="facts">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
    ${(chosen.includes("config") || chosen.includes("split")) && html`<div class="chosen">
      ${chosen.includes("config") && field({ name: "config", label: "Configuration", kind: "choice", choices: choices(configs, found.config), set: (config) => look({ config, split: "" }) })}
      ${chosen.includes("split") && field({ name: "split", label: "Split", kind: "choice", choices: choices(splits, found.split), set: (split) => look({ split }) })}
    </div>`}
    ${chosen.includes("text_column") && field({ name: "text_column", label: "Column that holds the text", kind: "choice", choices: [["", usual], ...texts.map((one) => [one, one])] })}
    ${texts?.length === 1 && html`<p class="help">The text is in ${found.text_column ?? texts[0]}.</p>`}
    ${columns.length > 0 && html`<p class="help">Other columns, which are left out: ${columns.join(", ")}.</p>`}
    <${Rows} rows=${found.rows} column=${values.text_column || found.text_column || texts?.[0] || "text"} />
  </div>`;
}

const choices = (names, chosen) => [...(chosen ? [] : [["", "say which"]]), ...names.map((one) => [one, one])];

function Rows({ rows, column }) {
  if (!rows?.length) return null;
  return html`<ol class="firstrows" aria-label="The first rows">${rows.slice(0, ROWS).map((row, at) => {
    const text = String(row[column] ?? JSON.stringify(row));
    return html`<li key=${at} class="text" dir="auto">${text.slice(0, CHARS)}${text.length > CHARS && "…"}</li>`;
  })}</ol>`;
}
