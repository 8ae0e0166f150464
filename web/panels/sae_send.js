import { html } from "../ui/html.js";
import { Sending, useSending } from "../ui/sending.js";

/**
 * Files or a folder of this browser, sent to the studio. `onSent`: told the source "upload:<id>" and what the folder or
 * the first file is called, and two empty texts when they are taken back.
 */
export function SendFiles({ taken, onSent }) {
  const sending = useSending({ called: calledOf, taken, onSent: (source, files) => onSent(source, source && calledOf(files)) });
  if (sending.news) return html`<${Sending} sending=${sending} label="Files of this computer" />`;
  const chosen = ({ target }) => sending.begin([...target.files].filter((file) => !/(^|\/)\./.test(pathOf(file))).map(placed));
  return html`<details><summary>Or send it from this computer</summary><div class="filters">
    <label>A folder <input type="file" webkitdirectory onChange=${chosen} /></label>
    <label>Files <input type="file" multiple accept=".safetensors,.npz,.json,.pt,.pth" onChange=${chosen} /></label></div>
    <p class="help">A folder as its maker publishes it; its name may say which model and layer are meant.</p></details>`;
}

const pathOf = (file) => file.webkitRelativePath || file.name;

/** A file under the path that it has in its folder. */
const placed = (file) => ({ name: pathOf(file), size: file.size, slice: (from, to) => file.slice(from, to) });

/** The folder that they lie in, else the first that holds weights. */
const calledOf = (files) => (files.find(({ name }) => !name.endsWith(".json")) ?? files[0]).name.split("/")[0].replace(/\.(safetensors|npz|pt|pth)$/, "");
