// A text cut where a model's tokens begin and end. Pure.

/**
 * The text in order: `{text, id, special}` for each token, `id` null for what no token covers. A part of a character is
 * told by its bytes, as ⟨E2⟩; a token that is not in the text, as the BOS before it, by what it decodes to.
 * @param {string} text
 * @param {{ids: number[], texts: string[], starts: number[], ends: number[], special: boolean[]}} found offsets in bytes
 * @returns {{text: string, id: number | null, special: boolean}[]}
 */
export function piecesOf(text, { ids, texts, starts, ends, special }) {
  const bytes = new TextEncoder().encode(text);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const cut = (from, to) => {
    const part = bytes.subarray(from, to);
    try {
      return decoder.decode(part);
    } catch {
      return [...part].map((byte) => `⟨${byte.toString(16).toUpperCase().padStart(2, "0")}⟩`).join("");
    }
  };
  const pieces = [];
  let at = 0;
  ids.forEach((id, n) => {
    if (starts[n] > at) pieces.push({ text: cut(at, starts[n]), id: null, special: false });
    const alone = ends[n] <= starts[n];
    pieces.push({ text: alone ? texts[n] : cut(starts[n], ends[n]), id, special: special[n] });
    at = Math.max(at, ends[n]);
  });
  return pieces;
}

/** A token as one line shows it: white space made visible, so that it can be told from none. */
export const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍").replaceAll(" ", "·");
