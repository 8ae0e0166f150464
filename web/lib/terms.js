// The words of the page that not everybody knows, in a sentence each (docs/terms.md). Pure.

const TERMS = {
  __proto__: null,
  sae: "A sparse autoencoder: it takes an activation apart into a few of many directions, and puts it together again from them.",
  activation: "The vector of numbers that a model computes for a token at one place inside it; training reads these.",
  feature: "One of an SAE's directions and what is known of it: how often it fires, on which texts most, what it seems to mean.",
  tokenization: "A dataset cut into a model's tokens and laid into windows of equal length.",
  steering: "Changing features while a model writes, to see what it does to the text.",
  hook: "The name of a place in a model: blocks.3.hook_resid_post is the residual stream after block 3.",
  fvu: "Fraction of variance unexplained: how much of the activations an SAE loses, from 0 (nothing) to 1 (as if it only knew their mean).",
  l0: "How many latents are active on a token, on average.",
  "δce": "How much worse, in nats, the model predicts the next token from what the SAE puts together than from the activation itself.",
  dead: "Latents that fire on none of the tokens looked at.",
  alive: "Latents that fire on at least one of the tokens looked at.",
  density: "The share of tokens on which a feature fires.",
  width: "How many latents an SAE has.",
  k: "How many latents a TopK SAE is told to use on a token.",
  certificate: "Whether an SAE is read as it was meant, tried out on held-out text.",
  typical: "How strong a feature still is in the weakest of its strongest examples; large for one that is strong again and again.",
  detection: "A judge reads the label and some texts, and says in which of them the feature fires.",
  fuzzing: "A judge reads the label and texts with some tokens marked, and says whether these are the right ones.",
  "balanced accuracy": "The mean of two shares: of texts in which the feature fires and of those in which it does not, how many were judged right. 0.5 is chance.",
  auroc: "How often a text in which the feature fires is taken for more likely than one in which it does not: 0.5 is chance, 1 is always.",
  score: "How well a label tells where its feature fires, on text that the label was not made from: 0.5 is chance, 1 is always.",
};

/**
 * The sentence that explains a word, or the word that a title begins with: "SAEs", "ΔCE, nats"; null when none does.
 * @param {unknown} word
 * @returns {string | null}
 */
export function explained(word) {
  if (typeof word !== "string") return null;
  const plain = word.split(",")[0].trim().toLowerCase();
  return TERMS[plain] ?? TERMS[plain.replace(/s$/, "")] ?? null;
}
