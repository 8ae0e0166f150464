// A text in tokens as pieces to draw: each token that fires, and what stands between them. Pure.

/**
 * `{text, value, peak}` each, joined they are the text; value is 0 of what does not fire. A token whose character comes
 * with a later one, and so has no text itself, is shown with that one.
 * @param {string[]} texts
 * @param {number[]} values
 * @param {number} [peak] place of the token that stands out
 */
export function runs(texts, values, peak) {
  const found = [];
  let [carried, isPeak] = [0, false];
  texts.forEach((text, at) => {
    const value = Math.max(values[at] ?? 0, carried);
    isPeak ||= at === peak;
    if (text === "" && at + 1 < texts.length) {
      carried = value;
      return;
    }
    const last = found.at(-1);
    if (!(value > 0) && !isPeak && last && !(last.value > 0) && !last.peak) last.text += text;
    else found.push({ text, value: Math.max(value, 0), peak: isPeak });
    [carried, isPeak] = [0, false];
  });
  return found;
}

/** Line breaks and tabs as they can be seen; with `breaks` a line ends where it ends, else all is one line. */
export function visible(text, breaks = false) {
  const shown = text.replace(/\t/g, "⇥").replace(/\r\n?/g, "\n");
  return breaks ? shown.replace(/\n/g, "↵\n") : shown.replace(/ *\n[ \n]*/g, " ↵ ");
}

/** A token by itself, its spaces seen. */
export const shownToken = (text) => visible(text, true).replace(/\n/g, "").replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length)) || "␀";

/** The part of an example that fits in a line, its peak in the middle: `{texts, values, peak}`. */
export function around({ texts, activations, peak }, before = 10, after = 8) {
  const first = Math.max(peak - before, 0);
  return { texts: texts.slice(first, peak + after), values: activations.slice(first, peak + after), peak: peak - first };
}
