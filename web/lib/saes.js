// What is known of an SAE, in the words of the page, from the API's object. Pure.

import { UNKNOWN, about, count, known, share } from "./format.js";

export const modelOf = (sae) => sae.model?.name ?? sae.model_name ?? null;

/** A figure of its evaluation where it has one, else as it was at the end of its training, else as it was certified. */
export function latest(sae, name) {
  const { evaluation, certificate } = sae;
  return evaluation?.figures?.[name]?.value ?? sae[name] ?? (certificate?.holds === "declared" ? certificate.best?.[name] : null) ?? null;
}

/** Who has measured what `latest` gives, in words. */
export function measuredBy(sae) {
  if (sae.evaluation?.figures) return "as it was evaluated";
  if (sae.fvu != null) return sae.imported ? "as it was measured here" : `at the end of its training, on ${count(sae.held_out_tokens)} held-out tokens`;
  if (latest(sae, "fvu") !== null) return "as it was certified";
  return ["nothing", "changed"].includes(certified(sae).holds) ? "nothing has been measured of it here yet" : "its certificate says what was measured of it";
}

/** The share of latents that never fire, of whoever has looked last. */
export function deadOf(sae) {
  const alive = latest(sae, "alive");
  return known(alive) ? 1 - alive : null;
}

/** A share that may be of one latent in many: it is only "0%" when there is none. */
export const little = (x) => (x > 0 && x < 0.001 ? "<0.1%" : share(x));

/** How far its features are known, of what the studio says depends on it (null before it has): "88% labelled". */
export function labelled(found, width) {
  if (!found) return UNKNOWN;
  if (!found.extractions) return "none yet";
  return known(width) ? `${share(found.labels / width)} labelled` : `${count(found.labels)} labelled`;
}

// What a certificate's `holds` is called, its shape (ui/mark.js), and what it means.
const CERTIFIED = {
  declared: ["certified", "done", "It is read as it was meant: no other way of reading it explains the text better."],
  repaired: ["repaired", "done", "Another way of reading it is better, and an SAE that is read that way was written beside it."],
  other: ["to repair", "partial", "Another way of reading it explains the text better than the one its files declare."],
  none: ["no way fits", "failed", "No way of reading it explains the text better than its mean: it may be of another model or hook."],
  changed: ["outdated", "partial", "Its files were changed after it was certified."],
  nothing: ["not certified", "queued", "Nobody has tried yet whether it is read as it was meant."],
};

/** How its certificate stands: `{word, shape, means, holds}`. */
export function certified(sae) {
  const found = sae.certificate;
  const holds = !found ? "nothing" : found.holds === "other" && found.repaired ? "repaired" : found.holds ?? "nothing";
  const [word, shape, means] = CERTIFIED[holds] ?? CERTIFIED.nothing;
  return { word, shape, means, holds };
}

/** "there", "outdated" (its files were changed since) or "none". */
export function evaluated(sae) {
  if (!sae.evaluation) return "none";
  return sae.evaluation.figures ? "there" : "outdated";
}

/** Where it is from, in a few words: a repository, a path, or that it was trained here. */
export function sourceOf(sae) {
  const { imported, repair } = sae;
  if (repair) return `repaired from ${repair.of}`;
  if (!imported) return "trained here";
  const source = imported.source?.startsWith("upload:") ? "uploaded" : imported.source ?? "brought in";
  return imported.path ? `${source}:${imported.path}` : source;
}

/** Those that a person looks for: `{q, tag, model}`, each of which may be missing. */
export function found(saes, { q = "", tag = "", model = "" }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  return saes.filter((sae) => {
    const text = [sae.name, modelOf(sae), sae.hook, sae.architecture, sae.note, sourceOf(sae), ...(sae.tags ?? [])].join(" ").toLowerCase();
    return words.every((word) => text.includes(word)) && (!tag || sae.tags?.includes(tag)) && (!model || modelOf(sae) === model);
  });
}

/** Every tag that one of them has, in the alphabet's order. */
export const tagsOf = (saes) => [...new Set(saes.flatMap((sae) => sae.tags ?? []))].sort();
export const modelsOf = (saes) => [...new Set(saes.map(modelOf).filter(Boolean))].sort();

const plain = (saeAt) => saeAt.split("@")[0];

/** Whether a job is about the SAE of a name: it makes, reads or measures it. */
export function isAbout(job, name) {
  const { spec } = job;
  return Boolean(job.makes?.names?.includes(name) || spec?.sae === name || spec?.saes?.some((one) => plain(one) === name));
}

/** Tags of a text, words with blanks or commas between: what to add to those there are, and what to take away. */
export function tagged(before, text) {
  const now = [...new Set(text.split(/[\s,]+/).filter(Boolean))];
  return { add_tags: now.filter((one) => !before.includes(one)), remove_tags: before.filter((one) => !now.includes(one)) };
}

const counted = (n, one, more = "") => (n ? [`${count(n)} ${one}${n > 1 ? "s" : ""}${more}`] : []);

/** Of what the studio says depends on an SAE: what goes with it into the trash, and what stays and names it. */
export function depending(found) {
  const goes = [
    ...counted(found.extractions, "extraction"),
    ...counted(found.labels, "label"),
    ...counted(found.marked, "marked feature"),
    ...counted(found.ranges, "range"),
    ...found.exports.map((format) => `its ${format} export`),
  ];
  const stays = [
    ...found.profiles.map((name) => `the profile ${name}, which cannot be used without it`),
    ...counted(found.steerings, "run", " of steering"),
    ...found.extended_by.map((name) => `the SAE ${name}, whose training went on from it`),
  ];
  const holds = [
    ...(found.jobs.length ? [`job ${found.jobs.join(", ")} uses it: stop ${found.jobs.length > 1 ? "them" : "it"} or wait for the end`] : []),
    ...(found.in_session ? ["the session has it in memory: end the session first"] : []),
  ];
  return { goes, stays, holds };
}

/** How long a job of a kind takes for so many tokens, as the newest of that kind went here; null when none has been. */
export function timeFor(kind, tokens, jobs) {
  const done = jobs.filter((job) => job.kind === kind && job.state === "done" && job.result?.tokens > 0 && job.started_at);
  const last = done.sort((a, b) => b.id - a.id)[0];
  if (!last || !known(tokens)) return null;
  const seconds = (Date.parse(last.ended_at) - Date.parse(last.started_at)) / 1000;
  return { seconds: (seconds * tokens) / last.result.tokens, words: `${about((seconds * tokens) / last.result.tokens)}, as job ${last.id} went` };
}
