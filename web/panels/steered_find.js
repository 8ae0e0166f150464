import { useRef, useState } from "preact/hooks";
import { get, said } from "../api.js";
import { number } from "../lib/format.js";
import { html } from "../ui/html.js";

const TYPED_MS = 200;
const SHOWN = 8;

/** Features by words of their label, by a token that they fire on, or by number; `add(sae, index)`. `saes`: of one model. */
export function Find({ sae, saes, taken, add }) {
  const [of, setOf] = useState(sae.name);
  const [text, setText] = useState("");
  const [found, setFound] = useState(null); // {words, rows, told}, null: nothing is looked for
  const [at, setAt] = useState(0);
  const timer = useRef(0);
  const turn = useRef(0);
  const one = saes.find(({ name }) => name === of) ?? sae;
  const search = async (words, within) => {
    const mine = ++turn.current;
    const answer = words ? await looked(within, words) : null;
    if (mine !== turn.current) return null;
    setFound(answer && { words, ...answer });
    setAt(0);
    return answer;
  };
  const typed = (words, within = one, after = TYPED_MS) => {
    setText(words);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search(words.trim(), within), after);
  };
  const close = () => {
    clearTimeout(timer.current);
    turn.current++;
    setFound(null);
  };
  const take = (index) => {
    close();
    add(one.name, index);
    setText("");
  };
  /** What is shown may be of fewer letters than are typed by now: then only a number is taken unseen. */
  const takeChosen = async (words) => {
    clearTimeout(timer.current);
    const [row] = found?.words === words ? [found.rows[at]] : (await search(words, one))?.rows ?? [];
    if (row && (found?.words === words || String(row.index) === words)) take(row.index);
  };
  const rows = found?.rows ?? [];
  const keys = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.isComposing) return;
    if (event.key === "Escape" && found) close();
    else if (event.key === "Enter" && text.trim()) takeChosen(text.trim());
    else if (by && rows.length) setAt((at + by + rows.length) % rows.length);
    else return;
    event.preventDefault();
  };
  return html`<div class="find">
    ${saes.length > 1 && html`<select aria-label="SAE of the feature to add" value=${of} onChange=${({ target }) => {
      setOf(target.value);
      typed(text, saes.find(({ name }) => name === target.value), 0);
    }}>${saes.map(({ name }) => html`<option value=${name} key=${name} selected=${name === of}>${name}</option>`)}</select>`}
    <input type="search" role="combobox" aria-label="Add a feature" aria-expanded=${found !== null} aria-controls="found" aria-autocomplete="list"
      aria-activedescendant=${rows[at] ? `found-${rows[at].index}` : undefined} placeholder="Add a feature: words of its label, or its number"
      autocomplete="off" value=${text} onInput=${({ target }) => typed(target.value)} onKeyDown=${keys} onBlur=${close} />
    <div class="findings" hidden=${!found} onMouseDown=${(event) => event.preventDefault() /* the field keeps the focus */}>
      <div role="listbox" id="found" aria-label="Features found">${rows.map((row, place) => html`<div role="option" key=${row.index} id=${`found-${row.index}`}
        aria-selected=${place === at} class="found" onClick=${() => take(row.index)} onMouseMove=${() => place !== at && setAt(place)}>
        <${Row} row=${row} taken=${taken(one.name, row.index)} /></div>`)}</div>
      ${found?.told && html`<p class="details" role="status">${found.told}</p>`}
    </div>
  </div>`;
}

function Row({ row, taken }) {
  const label = row.label?.text ?? (row.tokens?.length ? `fires on ${row.tokens.map((token) => `“${token}”`).join(", ")}` : "no label");
  return html`<b class="figure">${row.index}</b><span class="of">${label}</span>
    <span class="figure about">${taken ? "chosen" : row.max !== undefined && `max ${number(row.max, 1)}`}</span>
    <span class="figure about">${row.score !== null && row.score !== undefined && `score ${number(row.score, 2)}`}</span>`;
}

/** What is found of a text, and what is to be said of it. */
async function looked(sae, words) {
  const path = `/api/saes/${encodeURIComponent(sae.name)}/features`;
  const listed = async (query) => (await get(`${path}?${new URLSearchParams({ limit: SHOWN, sort: "-max", ...query })}`)).features;
  const index = /^\d+$/.test(words) ? Number(words) : null;
  if (index !== null && index >= sae.width) return { rows: [], told: `${sae.name} has features 0 to ${sae.width - 1}.` };
  try {
    if (index !== null) return { rows: [await get(`${path}/${index}`).then((one) => ({ ...one, score: one.score?.balanced_accuracy ?? null }))] };
    const labelled = await listed({ q: words });
    if (labelled.length) return { rows: labelled };
    const firing = /["\\]/.test(words) ? [] : await listed({ filter: `token:"${words}"` });
    return { rows: firing, told: firing.length ? "No label has these words; these fire on the token." : "No label has these words, and no feature fires most on such a token." };
  } catch (error) {
    if (index !== null) return { rows: [{ index, label: null }] }; // without its features the SAE can be steered all the same
    return { rows: [], told: `${said(error)}. A number can be given all the same.` };
  }
}
