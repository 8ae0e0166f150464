"""How often a latent for a word's first letter is silent because a latent of the word has taken its part: light form.

After Chanin et al. 2024, "A is for Absorption", arXiv:2409.14507, with three differences. The words are tokens of the
text at hand that begin a word, in their places, not a vocabulary in a prompt. What a latent does is told by its share
of the activation's projection onto the probe's direction, as in SAEBench (Karvonen et al. 2025, arXiv:2503.09532), and
not by integrated gradients. Both are taken from their means over words with other letters on, for what counts is what
sets a word apart from those: in SAEBench's form, from zero on, the projection may be near zero by itself, and then a
random latent has a large share of it (of the bundled model's text, 10 % of words by a random dictionary). Partial
absorption is not looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import Bootstrap, Figure, Floats, ratio
from mistudiod.engine.logistic import fit
from mistudiod.engine.probe_sample import Sample
from mistudiod.engine.probing import differences, mean, with_interval
from mistudiod.engine.sae import SparseAutoencoder

LEAST_TRAIN, LEAST_TEST = 100, 50  # words with a letter
LEAST_F1 = 0.6  # of the probe on the test part, or the activation does not say the letter (SAEBench)
F1_JUMP, MOST_MAIN = 0.03, 10  # one more latent is a main one when it adds more than that, to so many (SAEBench)
LEAST_COSINE = 0.025  # of an absorbing latent's decoder row with the probe's direction (SAEBench)
LEAST_SHARE = 0.4  # of the projection onto that direction, by the one latent (SAEBench)
SHOWN = 5  # absorbing latents of a letter

MEANING = (
    "rate: of words whose first letter a probe of the whole activation gets right, the share on which all latents for "
    "that letter (the main ones) are silent while one other latent writes its direction instead; high is bad: a latent "
    "that seems to mean a letter has holes"
)
LIMIT = (
    "a light form (words as they stand in this text, one absorbing latent, its effect by projection): do not compare "
    "with SAEBench's figures; where the main latents have a low F1 there is little that could be absorbed, and a low "
    "rate says nothing good"
)


@dataclass(frozen=True)
class Absorbed:
    """Of a letter, on the n test words on which the probe is right."""

    words: NDArray[np.int64]  # (n,) numbers in the sample
    silent: NDArray[np.bool_]  # no main latent fires
    absorbed: NDArray[np.bool_]
    latents: NDArray[np.int64]  # the one with the largest part in the projection; -1 where none fires
    shares: Floats  # and its share


@dataclass(frozen=True)
class Letter:
    letter: int
    probe_f1: float  # on the test part
    main: list[int]
    main_f1: float  # of a probe of the main latents, on the train part
    found: Absorbed


def absorption(sample: Sample, sae: SparseAutoencoder, heard: Callable[[int], None]) -> dict[str, Any]:
    """Every letter that the sample has words for, JSON-ready; ``left_out`` says why of the others.

    ``heard`` is told how many letters are done.
    Of a transcoder nothing: its latents write elsewhere than the probes read.
    """
    letters: list[Letter] = []
    if sae.transcodes:
        why = "a transcoder writes at another place than it reads, where the letters' directions are not known"
        left_out = dict.fromkeys(ascii_lowercase, why)
    else:
        letters, left_out = measured(sample, sae, heard)
    bootstrap = Bootstrap(sample.test_units)
    rates = [_rate(sample, one.found, one.found.absorbed) for one in letters]
    silents = [_rate(sample, one.found, one.found.silent) for one in letters]
    return {
        "meaning": MEANING,
        "limit": LIMIT,
        "unit": sample.unit,
        "units": sample.test_units,
        "measured": len(letters),
        "rate": with_interval(mean(rates), bootstrap) if letters else None,
        "silent": with_interval(mean(silents), bootstrap) if letters else None,
        "split": sum(len(one.main) > 1 for one in letters) / len(letters) if letters else None,
        "main_f1": sum(one.main_f1 for one in letters) / len(letters) if letters else None,
        "letters": [
            {
                "letter": ascii_lowercase[one.letter],
                "words": len(one.found.words),
                "probe_f1": one.probe_f1,
                "main": one.main,
                "main_f1": one.main_f1,
                "rate": with_interval(rate, bootstrap),
                "silent": with_interval(silent, bootstrap),
                "absorbing": _absorbing(sample, one.found),
            }
            for one, rate, silent in zip(letters, rates, silents, strict=True)
        ],
        "left_out": left_out,
    }


def measured(
    sample: Sample, sae: SparseAutoencoder, heard: Callable[[int], None]
) -> tuple[list[Letter], dict[str, str]]:
    """The letters that can be measured, and why the others cannot."""
    train, test = (np.flatnonzero((sample.letters >= 0) & (sample.train == part)) for part in (True, False))
    left_out = _too_few(sample, train, test)
    wanted = [n for n, letter in enumerate(ascii_lowercase) if letter not in left_out]
    if not wanted:
        return [], left_out
    probe = fit(sample.activations(train), torch.from_numpy(sample.letters[train][:, None] == np.array(wanted)))
    says = probe.scores(sample.activations(test)).numpy() > 0
    found = []
    for column, letter in enumerate(wanted):
        heard(letter)
        yes = sample.letters[test] == letter
        f1 = _f1(says[:, column], yes)
        if f1 < LEAST_F1:
            left_out[ascii_lowercase[letter]] = f"a probe of the activation finds it with an F1 of {f1:.2f} only"
            continue
        main, main_f1 = main_latents(sample, train, letter, sae.d_sae)
        direction = torch.nn.functional.normalize(probe.weights[:, column], dim=0)
        others = train[sample.letters[train] != letter]
        of = absorbed(sample, sae, direction, test[says[:, column] & yes], others, main)
        found.append(Letter(letter, f1, main, main_f1, of))
    return found, left_out


def main_latents(sample: Sample, train: NDArray[np.int64], letter: int, d_sae: int) -> tuple[list[int], float]:
    """The latents that fire for a letter, on the train part, and the F1 of a probe of them there.

    The best one by difference of means, and each next one as long as it raises F1 by more than F1_JUMP.
    """
    yes = (sample.letters[train] == letter).astype(np.int8)
    apart = differences(sample, train, yes, d_sae)
    order = np.argsort(-apart, kind="stable")[:MOST_MAIN]
    order = order[apart[order] > 0]
    columns = sample.columns(order, train)
    reached = 0.0
    for k in range(1, len(order) + 1):
        says = fit(columns[:, :k], torch.from_numpy(yes)[:, None]).scores(columns[:, :k])[:, 0].numpy() > 0
        f1 = _f1(says, yes > 0)
        if k > 1 and f1 - reached <= F1_JUMP:
            return order[: k - 1].tolist(), reached
        reached = f1
    return order.tolist(), reached


def absorbed(
    sample: Sample,
    sae: SparseAutoencoder,
    direction: Tensor,
    words: NDArray[np.int64],
    others: NDArray[np.int64],
    main: list[int],
) -> Absorbed:
    """Of ``words`` (n,), on which the probe of ``direction`` (d_in,), unit norm, float64, is right; ``others`` have
    other letters.
    """
    along = (sae.W_dec @ direction.to(sae.W_dec)).double().cpu().numpy()
    cosines = along / torch.linalg.vector_norm(sae.W_dec, dim=1).double().clamp_min(1e-300).cpu().numpy()
    projected = (sample.activations(words) - sample.activations(others).mean(0)) @ direction
    usual = sample.means(others, sae.d_sae)
    at, entries = sample.entries(words)
    latents = sample.latents[entries].astype(np.int64)
    parts = (sample.values[entries] - usual[latents]) * along[latents]
    order = np.lexsort((-parts, at))  # of each word the largest part first
    first = order[np.unique(at[order], return_index=True)[1]]
    top, part = np.full(len(words), -1, dtype=np.int64), np.zeros(len(words))
    top[at[first]], part[at[first]] = latents[first], parts[first]
    shares = np.divide(part, projected.numpy(), where=projected.numpy() > 0, out=np.zeros(len(words)))
    silent = np.full(len(words), True)
    silent[at[np.isin(latents, main)]] = False
    return Absorbed(words, silent, silent & (shares >= LEAST_SHARE) & (cosines[top] >= LEAST_COSINE), top, shares)


def _too_few(sample: Sample, train: NDArray[np.int64], test: NDArray[np.int64]) -> dict[str, str]:
    counts = [np.bincount(sample.letters[part], minlength=26) for part in (train, test)]
    return {
        letter: f"{counts[0][n]} words to train on and {counts[1][n]} to test on; {LEAST_TRAIN} and {LEAST_TEST} are "
        "needed"
        for n, letter in enumerate(ascii_lowercase)
        if counts[0][n] < LEAST_TRAIN or counts[1][n] < LEAST_TEST
    }


def _f1(says: NDArray[np.bool_], yes: NDArray[np.bool_]) -> float:
    return 2 * float((says & yes).sum()) / max(float(says.sum() + yes.sum()), 1.0)


def _rate(sample: Sample, of: Absorbed, which: NDArray[np.bool_]) -> Figure:
    """The share of its words."""
    some, all = (
        np.bincount(sample.units[words], minlength=sample.test_units).astype(np.float64)
        for words in (of.words[which], of.words)
    )
    return ratio(some, all)


def _absorbing(sample: Sample, of: Absorbed) -> list[dict[str, Any]]:
    """The latents that absorb most words: each with the token that it does so on most."""
    found = []
    latents, counts = np.unique(of.latents[of.absorbed], return_counts=True)
    for latent in latents[np.argsort(-counts, kind="stable")][:SHOWN]:
        here = of.absorbed & (of.latents == latent)
        ids, times = np.unique(sample.ids[of.words[here]], return_counts=True)
        text = sample.spelling[int(ids[times.argmax()])].decode(errors="replace")
        share = float(of.shares[here].mean())
        found.append({"latent": int(latent), "token": text, "words": int(here.sum()), "share": share})
    return found
