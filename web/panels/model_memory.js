import { size } from "../lib/format.js";
import { memories, verdict } from "../lib/fits.js";
import { sample } from "../state.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

const BITS = { fp32: "32 bits, as exact as it gets", bf16: "16 bits, the usual one", fp16: "16 bits, of a smaller range", int8: "8 bits, little is lost", nf4: "4 bits, rough and small" };
const ORDER = ["fp32", "bf16", "fp16", "int8", "nf4"];

/** What a model's weights take in each precision, and whether that is free now: about, for work takes more beside them. */
export function Precisions({ bytes }) {
  const places = memories(sample.value);
  const rows = Object.entries(bytes).sort(([a], [b]) => ORDER.indexOf(a) - ORDER.indexOf(b)).map(([name, taken]) => ({ name, taken }));
  const columns = [
    ["Precision", "name", ({ name }) => html`${name} <span class="help">${BITS[name] ?? ""}</span>`],
    ["Weights", "figure", ({ taken }) => size(taken)],
    ...places.map((one) => [`${one.name}, about`, "verdict", ({ taken }) => html`<${Verdict} taken=${taken} place=${one} />`]),
  ];
  return html`<${Table} label="Memory for its weights" columns=${columns} rows=${rows} />
    <p class="help">${places.map(({ name, free }) => `${name}: ${size(free)} free now`).join(" · ")}${places.length > 0 && ". "}
      Weights alone, an estimate: what a training or a session takes beside them its plan says.</p>`;
}

function Verdict({ taken, place }) {
  const is = verdict(taken, place);
  return html`<span class=${is === "fits" ? "" : is === "does not fit" ? "bad" : "tight"}>${is}</span>`;
}
