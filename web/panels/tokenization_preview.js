import { useState } from "preact/hooks";
import { characters, count, number, share } from "../lib/format.js";
import { useAsked, useLoaded } from "../ui/asked.js";
import { html } from "../ui/html.js";
import { CutText } from "./tokenization_text.js";

const ROWS = 8; // documents to look at, from all over the dataset
const CHARS = 3000;

/** A text as the chosen model reads it, one of the dataset's or a person's own; and what the filters leave out. */
export function TokenPreview({ dataset, values }) {
  const [at, setAt] = useState(0);
  const [own, setOwn] = useState(null); // a text of one's own; null: a document is shown
  const { found, failed } = useLoaded(`/api/datasets/${dataset.id}/sample?rows=${ROWS}&chars=${CHARS}`, "");
  const rows = found?.rows ?? [];
  const row = rows[at];
  const text = own ?? row?.text ?? "";
  const asked = useAsked(`/api/models/${values.model}/tokens`, text ? { text } : null);
  const step = (by) => {
    setOwn(null);
    setAt((at + by + rows.length) % rows.length);
  };
  return html`<section class="token-preview" aria-labelledby="token-preview">
    <header>
      <h3 id="token-preview">How ${values.model} reads it</h3>
      <div class="verbs">
        ${own === null && rows.length > 1 && html`<button type="button" class="quiet" onClick=${() => step(-1)} aria-label="Document before">‹</button>
          <span class="help">row ${count(row?.row)}</span>
          <button type="button" class="quiet" onClick=${() => step(1)} aria-label="Document after">›</button>`}
        <button type="button" class="quiet" onClick=${() => setOwn(own === null ? [...text].slice(0, 300).join("") : null)}>${own === null ? "A text of your own" : "A document"}</button>
      </div>
    </header>
    ${own !== null && html`<textarea rows="3" maxlength="20000" aria-label="A text of your own" value=${own} onInput=${({ target }) => setOwn(target.value)}></textarea>`}
    ${(failed ?? asked.failed) && html`<p class="refusal" role="alert">${failed ?? asked.failed}</p>`}
    ${rows.length === 0 && found && own === null ? html`<p class="help">The dataset has no text.</p>` : null}
    <${Cut} text=${text} asked=${asked} whole=${own !== null || row?.characters === characters(text)} key=${values.model} />
    <${Filtered} dataset=${dataset} values=${values} />
  </section>`;
}

/** The text of the last answer, until there is another: nothing jumps while somebody types. */
function Cut({ text, asked, whole }) {
  const [shown, setShown] = useState(null);
  if (asked.found && asked.found !== shown?.found) setShown({ found: asked.found, text });
  if (!text || asked.failed) return null;
  if (!shown) return html`<p class="help late">Cutting a text into tokens…</p>`;
  const { found } = shown;
  const special = found.special.filter(Boolean).length;
  const bytes = new TextEncoder().encode(shown.text).length;
  const told = [
    `${count(found.tokens)} tokens`,
    special > 0 && `${count(special)} special`,
    found.tokens > special && `${number(bytes / (found.tokens - special), 2)} bytes a token`,
    found.left_out > 0 && `the last ${count(found.left_out)} are not shown`,
    !whole && "of the document's beginning",
  ];
  return html`<p class="help">${told.filter(Boolean).join(" · ")}</p>
    <${CutText} text=${shown.text} found=${found} />`;
}

const FILTERS = ["shortest", "longest", "max_unprintable", "must_match", "must_not_match", "drop_duplicates"];
const WHY = {
  shortest: "too short",
  longest: "too long",
  max_unprintable: "unprintable",
  must_match: "without a match",
  must_not_match: "with what is not wanted",
  drop_duplicates: "the same as another",
  empty: "without a token",
};

/** What the filters would do to a few hundred documents; nothing where there are none. */
function Filtered({ dataset, values }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, values[name]]).filter(([, value]) => value || value === 0));
  const { found, failed } = useAsked("/api/datasets/filtered", Object.keys(filters).length ? { dataset: dataset.name, model: values.model, ...filters } : null);
  if (failed) return html`<p class="refusal" role="alert">${failed}</p>`;
  if (!found) return null;
  const dropped = Object.entries(found.dropped).map(([reason, n]) => `${count(n)} ${WHY[reason] ?? reason}`);
  return html`<p class="help" role="status">Of ${count(found.documents)} documents the filters keep ${count(found.kept)} (${share(found.kept / found.documents)})${dropped.length > 0 && `; they leave out ${dropped.join(", ")}`}.</p>`;
}
