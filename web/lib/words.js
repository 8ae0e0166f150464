// Which words of a text another one does not have at their place: the longest common subsequence of words. Pure.

const MOST = 1500; // words of each: the table grows with both

/** `text` in pieces, `{text, changed}`; joined they are the text. Nothing is marked of a text that is too long. */
export function compared(text, with_) {
  const [words, others] = [wordsOf(text), wordsOf(with_)];
  if (words.length > MOST || others.length > MOST) return [{ text, changed: false }];
  const kept = common(words, others);
  const pieces = [];
  words.forEach((word, at) => {
    const changed = !kept.has(at) && word.trim() !== "";
    const last = pieces.at(-1);
    if (last && last.changed === changed) last.text += word;
    else pieces.push({ text: word, changed });
  });
  return pieces;
}

const wordsOf = (text) => text.match(/\s+|\S+/g) ?? [];

/** Places in `words` of a longest common subsequence with `others`. */
function common(words, others) {
  const lengths = Array.from({ length: words.length + 1 }, () => new Uint16Array(others.length + 1));
  for (let i = words.length - 1; i >= 0; i--) {
    for (let j = others.length - 1; j >= 0; j--) {
      lengths[i][j] = words[i] === others[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < words.length && j < others.length; ) {
    if (words[i] === others[j]) {
      kept.add(i++);
      j++;
    } else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return kept;
}
