"""Absorption, planted and not: a latent for a letter that is silent on one word, whose own latent writes the letter."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_lowercase

import numpy as np
import pytest
import torch
from probed import CAPITAL, LETTERS, SPECIAL, TURN, WORD, random_sae, sample, true_sae

from mistudiod.engine.absorption import absorbed, absorption, main_latents

L = ascii_lowercase.index("l")


def of(found, letter):
    return next(one for one in found["letters"] if one["letter"] == letter)


def test_a_planted_absorption_is_found_by_its_latent_its_token_and_its_share() -> None:
    sae = true_sae(absorbs=True)
    taken = sample(sae, windows=600)
    found = absorption(taken, sae, print)
    assert [one["letter"] for one in found["letters"]] == list(LETTERS)
    absorbing = of(found, "l")
    assert absorbing["main"] == [L] and absorbing["probe_f1"] > 0.95
    [one] = absorbing["absorbing"]
    assert (one["latent"], one["token"]) == (WORD, " lab")
    assert 0.6 < one["share"] < 1.4
    words = (taken.letters == L) & ~taken.train
    share = (taken.ids[words] == SPECIAL).mean()
    assert absorbing["rate"]["value"] == pytest.approx(share, abs=0.01) and absorbing["rate"]["value"] > 0.01
    assert absorbing["silent"]["value"] == pytest.approx(absorbing["rate"]["value"], abs=0.01)
    low, high = absorbing["rate"]["interval"]
    assert low < share < high
    for letter in LETTERS.replace("l", ""):
        assert of(found, letter)["rate"] == {"value": 0.0, "interval": None}
    assert found["rate"]["value"] == pytest.approx(absorbing["rate"]["value"] / 4)
    assert found["split"] == 0 and found["main_f1"] > 0.9 and found["measured"] == 4


def test_where_none_is_planted_none_is_found() -> None:
    for sae in (true_sae(), random_sae()):
        found = absorption(sample(sae, windows=600), sae, print)
        assert found["measured"] == 4 and found["rate"]["value"] < 0.03
        assert {"a", "b"} <= set(found["left_out"]) and "words to train on" in found["left_out"]["a"]


def test_a_word_whose_latent_does_not_write_the_letter_is_not_absorbed_only_silent() -> None:
    sae = true_sae(absorbs=True)
    sae.W_dec = true_sae().W_dec  # the word's latent writes the word alone: the letter is lost there
    found = of(absorption(sample(sae, windows=600), sae, print), "l")
    assert found["silent"]["value"] > 0.01 and found["rate"]["value"] == 0 and found["absorbing"] == []


def test_a_letter_that_two_latents_share_is_split_and_not_absorbed() -> None:
    sae, spare = true_sae(), WORD + 1  # one latent for its small words, another one for those with a capital
    letter, capital = TURN[L], TURN[CAPITAL]
    sae.W_enc[:, L], sae.W_enc[:, spare] = (
        letter - capital,
        letter / 2 + capital / 2 - 0.2 * (TURN[:26].sum(0) - letter),
    )
    sae.b_enc[spare] = -1
    sae.W_dec[spare] = letter
    taken = sample(sae, windows=600)
    train = np.flatnonzero((taken.letters >= 0) & taken.train)
    main, f1 = main_latents(taken, train, L, sae.d_sae)
    assert sorted(main) == [L, spare] and f1 > 0.9
    found = absorption(taken, sae, print)
    assert of(found, "l")["rate"]["value"] == 0 and found["split"] == 0.25


def test_absorption_is_its_definition_word_by_word() -> None:
    sae = true_sae(absorbs=True)
    sae.W_dec = sae.W_dec + 0.05 * torch.randn(sae.W_dec.shape, generator=torch.Generator().manual_seed(2))
    taken = sample(sae, windows=200)
    words = np.flatnonzero((taken.letters == L) & ~taken.train)
    others = np.flatnonzero((taken.letters >= 0) & (taken.letters != L) & taken.train)
    direction = torch.nn.functional.normalize((TURN[L] + 0.3 * TURN[WORD] + 0.3 * TURN[CAPITAL]).double(), dim=0)
    z = sae.encode(taken.x.float()).double()
    main = [CAPITAL]
    found = absorbed(taken, sae, direction, words, others, main)
    rows = sae.W_dec.double()
    count = 0
    for n, word in enumerate(words):
        fires = [latent for latent in range(sae.d_sae) if z[word, latent] > 0]
        parts = {one: float((z[word, one] - z[others, one].mean()) * (rows[one] @ direction)) for one in fires}
        top = max(parts, key=lambda one: parts[one])
        whole = float((taken.x[word].double() - taken.x[others].double().mean(0)) @ direction)
        share = parts[top] / whole if whole > 0 else 0.0
        cosine = float(rows[top] @ direction / rows[top].norm())
        silent = main[0] not in fires
        assert found.latents[n] == top and found.silent[n] == silent
        assert found.shares[n] == pytest.approx(share, rel=1e-4, abs=1e-6)
        assert found.absorbed[n] == (silent and share >= 0.4 and cosine >= 0.025)
        count += bool(found.absorbed[n])
    assert 0 < count < len(words) and not found.silent.all()


def test_of_a_transcoder_nothing_is_measured_and_it_is_said_why() -> None:
    sae = replace(true_sae(), transcodes=True)
    found = absorption(sample(sae, windows=30), sae, print)
    assert found["measured"] == 0 and found["rate"] is None and "a transcoder writes" in found["left_out"]["l"]
