"""A text of made-up words, a model that gives each letter, capitals and each word a direction, and SAEs of it."""

from __future__ import annotations

from functools import cache
from string import ascii_lowercase

import numpy as np
import torch
from torch.nn.functional import normalize

from mistudiod.engine.harvest import Harvest
from mistudiod.engine.probe_sample import Sample, take
from mistudiod.engine.rules import JumpReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder

CONTEXT, D_IN, BOS = 32, 96, 0
LETTERS = "elst"  # with words enough to be measured; every other letter has fewer
MANY = [
    f" {first}{a}{b}".encode()
    for letter in LETTERS
    for a in "abcde"
    for b in "bcdfg"
    for first in (letter, letter.upper())
]
FEW = [
    f" {first}{letter}u".encode()
    for letter in ascii_lowercase
    if letter not in LETTERS
    for first in (letter, letter.upper())
]
MARKS = [b".", b",", b"\n", b"7"]
VOCABULARY = [b"", *MANY, *FEW, *MARKS]
SHARES = np.repeat([0, 0.76 / len(MANY), 0.12 / len(FEW), 0.12 / len(MARKS)], [1, len(MANY), len(FEW), len(MARKS)])
CAPITAL, WORD = 26, 30  # dimensions: 0 to 25 are the letters', from WORD on one is the special word's, and then others'
SPECIAL = VOCABULARY.index(b" lab")  # the word that a latent of its own may stand for: 2 in 100 of those with an l
TURN = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(5)))[0]


class WordWindows:
    """BOS, then tokens drawn of the vocabulary."""

    context = CONTEXT

    def rows(self, indices):
        rows = [np.random.default_rng(int(one)).choice(len(VOCABULARY), CONTEXT, p=SHARES) for one in indices]
        rows = np.array(rows, dtype=np.int64).reshape(-1, CONTEXT)
        rows[:, 0] = BOS
        return rows

    def special_mask(self, rows):
        return rows == BOS


@cache
def embedding() -> torch.Tensor:
    """(vocabulary, D_IN) before it is turned."""
    found = 3 * normalize(torch.randn(len(VOCABULARY), D_IN, generator=torch.Generator().manual_seed(3)))
    found[:, :WORD] = 0
    for token, spelled in enumerate(VOCABULARY):
        word = spelled.decode().strip()
        if word[:1].isalpha():
            found[token, ascii_lowercase.index(word[0].lower())] = 2
            found[token, CAPITAL] = 2 * word[0].isupper()
    found[:, WORD] = 0
    found[SPECIAL, WORD] = 2
    return found


def forward(ids):
    """(n, T) → (n, T, D_IN): the embeddings, with noise that the ids decide, turned so that no axis has a meaning."""
    noise = torch.randn(*ids.shape, D_IN, generator=torch.Generator().manual_seed(int(ids.sum())))
    return (embedding()[ids] + 0.1 * noise) @ TURN


def true_sae(absorbs: bool = False) -> SparseAutoencoder:
    """A latent for each letter, for capitals, for the special word; one for the letter may be silent on that word.

    Latent WORD then writes the word and its letter too.
    """
    enc, dec = torch.zeros(D_IN, D_IN), torch.eye(D_IN)
    enc[: WORD + 1, : WORD + 1] = torch.eye(WORD + 1)
    if absorbs:
        letter = ascii_lowercase.index("l")
        enc[WORD, letter] = -2.0
        dec[WORD, letter] = 1.0
    rule = JumpReLURule(torch.full((D_IN,), 0.8))
    return SparseAutoencoder(TURN.t() @ enc, torch.zeros(D_IN), dec @ TURN, torch.zeros(D_IN), rule, centred=False)


def random_sae(k: int = 8) -> SparseAutoencoder:
    rows = normalize(torch.randn(4 * D_IN, D_IN, generator=torch.Generator().manual_seed(11)))
    return SparseAutoencoder(rows.t().contiguous(), torch.zeros(4 * D_IN), rows, torch.zeros(D_IN), TopKRule(k))


def harvest() -> Harvest:
    return Harvest(WordWindows(), forward, (D_IN,), lm_tokens=8 * CONTEXT)


def spell(ids):
    return [VOCABULARY[id] for id in ids]


def by_window(indices):
    """Each window is a document."""
    return np.repeat(np.asarray(indices)[:, None], CONTEXT, axis=1)


def sample(sae: SparseAutoencoder, windows: int = 300, tokens: int = 20_000) -> Sample:
    return take(harvest(), np.arange(windows), slice(0, D_IN), sae, spell, by_window, lambda came: None, tokens)
