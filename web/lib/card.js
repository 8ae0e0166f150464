// The card of an SAE, a README.md as the studio writes it, in parts that can be drawn as text. Pure.
//
// No more of Markdown than such cards have: a front matter, headings, paragraphs, lists, tables, blocks of code, code in
// a line, and backslashes before what would be Markdown. Whatever else stands there stays as it is.

/**
 * @typedef {{kind: "front"|"heading"|"paragraph"|"list"|"table"|"code", text?: string, level?: number, items?: string[], rows?: string[][], language?: string}} Part
 */

/** @param {string} text @returns {Part[]} */
export function parts(text) {
  const lines = text.split("\n");
  /** @type {Part[]} */
  const found = [];
  let at = 0;
  const until = (ends) => {
    const first = at;
    while (at < lines.length && !ends(lines[at])) at++;
    return lines.slice(first, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    if (at === 0 && line === "---") {
      at++;
      found.push({ kind: "front", text: until((one) => one === "---").join("\n") });
      at++;
    } else if (line.startsWith("```")) {
      at++;
      found.push({ kind: "code", language: line.slice(3), text: until((one) => one.startsWith("```")).join("\n") });
      at++;
    } else if (/^#{1,6} /.test(line)) {
      const level = line.indexOf(" ");
      found.push({ kind: "heading", level, text: line.slice(level + 1) });
      at++;
    } else if (line.startsWith("|")) {
      const rows = until((one) => !one.startsWith("|")).map(cells).filter((row) => !row.every((cell) => /^-*$/.test(cell)));
      found.push({ kind: "table", rows });
    } else if (line.startsWith("- ")) {
      found.push({ kind: "list", items: until((one) => !one.startsWith("- ")).map((one) => one.slice(2)) });
    } else if (line.trim()) {
      found.push({ kind: "paragraph", text: until((one) => !one.trim() || /^(```|#{1,6} |\||- )/.test(one)).join(" ") });
    } else at++;
  }
  return found;
}

/** "| a \| b | c |" → ["a \| b", "c"]: what a backslash stands before is no border. */
const cells = (line) => line.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim());

/** A line in pieces, `{code, text}`: what stands between backticks is code, and backslashes before signs are gone. */
export function pieces(line) {
  return line.split(/(?<!\\)(`[^`]*`)/).filter(Boolean).map((piece) =>
    piece.length > 1 && piece.startsWith("`") && piece.endsWith("`")
      ? { code: true, text: piece.slice(1, -1) }
      : { code: false, text: piece.replace(/\\([\\`*_[\]<>|#!&~])/g, "$1") });
}

/** The parts below the heading of a name, without it, to the next heading of that level; all of them without a name. */
export function section(all, name) {
  if (!name) return all;
  const first = all.findIndex((part) => part.kind === "heading" && part.text === name);
  if (first < 0) return [];
  const { level } = all[first];
  const last = all.findIndex((part, at) => at > first && part.kind === "heading" && part.level <= level);
  return all.slice(first + 1, last < 0 ? undefined : last);
}
