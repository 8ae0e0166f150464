// Labels in files: those that this studio exports, and Neuronpedia's explanations. Pure.

const [LABEL_CHARS, EXPLANATION_CHARS, KNOWN_CHARS] = [200, 2000, 200]; // of a label here

/**
 * The labels of a file's text: of `labels/export` (an object a line), a feature_labels.json, or explanations of
 * Neuronpedia's. `{labels, skipped}`; skipped are explanations without a text. Throws Error, one sentence with the line.
 */
export function labelsOf(text) {
  const whole = json(text);
  if (Array.isArray(whole?.labels)) return { labels: whole.labels.map(({ score: _, ...one }) => one), skipped: 0 };
  const [labels, lines] = [[], text.split("\n")];
  let skipped = 0;
  lines.forEach((line, at) => {
    if (!line.trim()) return;
    const one = json(line);
    if (typeof one !== "object" || one === null || Array.isArray(one)) throw new Error(`line ${at + 1} is no JSON object`);
    if (one.feature !== undefined) labels.push(one);
    else if (one.index === undefined) throw new Error(`line ${at + 1} names no feature`);
    else {
      const label = explained(one, at + 1);
      if (label) labels.push(label);
      else skipped++;
    }
  });
  return { labels, skipped };
}

/** An explanation of Neuronpedia's as a label here: its notes are the explanation, its method the template. */
function explained(one, line) {
  const feature = /^\d+$/.test(String(one.index)) ? Number(one.index) : null;
  if (feature === null) throw new Error(`line ${line}: ${JSON.stringify(one.index)} is no index of a feature`);
  if (typeof one.description !== "string" || !one.description.trim()) return null;
  let text = clean(one.description.trim());
  let notes = known(one.notes, EXPLANATION_CHARS);
  if ([...text].length > LABEL_CHARS) {
    notes = notes ?? cut(text, EXPLANATION_CHARS);
    text = `${cut(text, LABEL_CHARS - 1).trimEnd()}…`;
  }
  const about = { model: known(one.explanationModelName, KNOWN_CHARS), template: known(one.typeName, KNOWN_CHARS), created_at: known(one.createdAt, KNOWN_CHARS) };
  return { feature, text, explanation: notes, provider: "neuronpedia", ...about };
}

/** What a text is cut to, by whole characters. */
const cut = (text, most) => [...text].slice(0, most).join("");
const known = (value, most) => (typeof value === "string" && value ? clean(cut(value, most)) : null);

/** NUL and half a surrogate pair, as an export writes them. */
const clean = (text) => text.replaceAll("\0", "␀").replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Why labels cannot be those of an SAE of a width; null when they may be. */
export function unfit(labels, width) {
  const most = labels.reduce((largest, { feature }) => Math.max(largest, feature), -1);
  return width && most >= width ? `they are of another SAE: there is a feature ${most}, and this one has features 0 to ${width - 1}` : null;
}
