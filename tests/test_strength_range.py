"""Useful strengths, held against the KL of whole logits; searches that meet functions of every kind; broken texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, tiny_model
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize

import mistudiod
from mistudiod.engine import strength_range
from mistudiod.engine.edits import Change
from mistudiod.engine.hooks import hooked
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.rules import RULES
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.strength_range import KL_MARKS, MOST, Divergence, Written, breaks, calibrate, kl_marks

HOOK, T = "blocks.1.hook_resid_post", 12
PICO = Path(mistudiod.__file__).parent / "demo" / "pico"
PYTHON = '''
import os

def read_lines(path):
    """The lines of a file, without what ends them."""
    with open(path) as file:
        return [line.rstrip() for line in file]

class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)
'''


def nothing() -> None:
    pass


def windows(n: int = 40) -> Tensor:
    """Random tokens; BOS and a separator here and there are token 0."""
    ids = torch.randint(1, VOCABULARY, (n, T), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = ids[3, 7] = ids[20, 5] = 0
    return ids


def adding(direction: Tensor, maximum: float, hook: str = HOOK) -> Change:
    """Of an SAE of one feature with that row of W_dec."""
    d = len(direction)
    rule = RULES["standard"]()
    sae = SparseAutoencoder(torch.zeros(d, 1), torch.zeros(1), direction[None], torch.zeros(d), rule)
    return Change(sae, "s", hook, hook, 0, "add", 1.0, maximum, "all")


def direction_of(d: int = 32, seed: int = 0) -> Tensor:
    return 2 * normalize(torch.randn(d, generator=torch.Generator().manual_seed(seed)), dim=0)


def sure(family: str, folder: Path) -> LM:
    """A random model that is surer of the next token than they usually are, so that there are nats to be moved."""
    lm = load_lm(tiny_model(family, folder))
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.mul_(10)
    return lm


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return sure("llama", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def pico() -> LM:
    return load_lm(PICO)


def by_hand(lm: LM, change: Change, ids: Tensor, strength: float) -> float:
    """Mean KL(steered || unsteered) over tokens that are not 0, from whole logits."""
    text = ids != 0

    def edit(x: Tensor) -> Tensor:
        return torch.where(text[..., None], x + strength * change.maximum * change.sae.W_dec[0], x)

    with torch.no_grad():
        clean = log_softmax(lm.model(input_ids=ids).logits.double(), -1)[text]
        with hooked(lm.model, {change.hook_out: edit}):
            steered = log_softmax(lm.model(input_ids=ids).logits.double(), -1)[text]
    return float(kl_div(clean, steered, reduction="batchmean", log_target=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_strengths_found_the_kl_of_whole_logits_is_that_of_the_marks(family: str, tmp_path: Path) -> None:
    lm = sure(family, tmp_path / family)
    size = lm.activations(windows(), HOOK).norm(dim=-1).median().item()
    change = adding(direction_of(), size)
    held = Divergence(lm, change, windows(), {0}, nothing)
    assert held.tokens == (windows() != 0).sum()
    found = kl_marks(held.of)
    reached = [
        (float(mark), strength)
        for mark, sides in found.items()
        for side, strength in sides.items()
        if strength is not None and (strength > 0) == (side == "high")
    ]
    assert len(reached) >= 4, found
    for mark, strength in reached:
        assert by_hand(lm, change, windows(), strength) == pytest.approx(mark, rel=0.05), (mark, strength)


def test_only_as_many_windows_are_read_as_hold_the_tokens(lm: LM) -> None:
    found = calibrate(lm, adding(direction_of(), 1.0), windows(), {0}, nothing, tokens=5 * T)
    assert 4 * T < found["tokens"] <= 5 * (T - 1) and found["maximum"] == 1.0


def test_the_other_direction_has_the_same_range_mirrored(lm: LM) -> None:
    change = adding(direction_of(), 8.0)
    mirrored = replace(change, sae=replace(change.sae, W_dec=-change.sae.W_dec))
    one, other = (calibrate(lm, each, windows(), {0}, nothing) for each in (change, mirrored))
    for part in (*one["kl"], None):
        of, mirror = (each["kl"][part] if part else each["breaks"] for each in (one, other))
        for side, opposite in (("low", "high"), ("high", "low")):
            assert of[side] is None if mirror[opposite] is None else of[side] == pytest.approx(-mirror[opposite])


def test_what_is_asked_of_the_change_but_to_add_has_no_bearing(lm: LM) -> None:
    change = adding(direction_of(), 8.0)
    other = replace(change, op="ablate", strength=3.0, scope="generated")
    assert calibrate(lm, other, windows(), {0}, nothing) == calibrate(lm, change, windows(), {0}, nothing)


def test_a_mark_that_the_largest_strength_does_not_reach_is_none(lm: LM) -> None:
    direction = direction_of()
    weak = calibrate(lm, adding(direction, 1e-7), windows(), {0}, nothing)
    assert all(sides == {"low": None, "high": None} for sides in weak["kl"].values())
    assert weak["breaks"] == {"low": None, "high": None, "why": None}
    half = calibrate(lm, adding(direction, 8.0), windows(), {0}, nothing)["kl"]["0.5"]["high"]
    found = calibrate(lm, adding(direction, 8.0 * half / MOST * 1.2), windows(), {0}, nothing)["kl"]
    assert found["2"] == {"low": None, "high": None} and found["0.5"]["high"] is not None


def test_a_dead_feature_has_no_range(lm: LM) -> None:
    with pytest.raises(ValueError, match="feature 0 of s is dead"):
        calibrate(lm, adding(direction_of(), 0.0), windows(), {0}, nothing)


def test_text_of_special_tokens_only_is_refused(lm: LM) -> None:
    with pytest.raises(ValueError, match="special tokens only"):
        calibrate(lm, adding(direction_of(), 1.0), windows(), range(VOCABULARY), nothing)


def test_whoever_hears_can_end_it_at_every_pass(lm: LM) -> None:
    class Enough(Exception):
        pass

    def of(limit: int) -> int:
        heard = 0

        def hear() -> None:
            nonlocal heard
            heard += 1
            if heard > limit:
                raise Enough

        try:
            calibrate(lm, adding(direction_of(), 8.0), windows(), {0}, hear)
        except Enough:
            return heard
        return -heard

    whole = -of(10**9)
    assert whole > 20
    assert [of(limit) for limit in (0, 1, whole // 2, whole - 1)] == [1, 2, whole // 2 + 1, whole]


# -- searches ---------------------------------------------------------------------------------------------------------


def looked(kl: Callable[[float], float]) -> tuple[Callable[[list[float]], list[float]], list[float]]:
    asked: list[float] = []

    def of(strengths: list[float]) -> list[float]:
        asked.extend(strengths)
        return [kl(strength) for strength in strengths]

    return of, asked


@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0, 17.0])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.7])
def test_marks_are_found_quickly_wherever_they_lie(scale: float, power: float) -> None:
    of, asked = looked(lambda s: (abs(s) / scale / (2 if s < 0 else 1)) ** power)
    found = kl_marks(of)
    for mark in KL_MARKS:
        at = scale * mark ** (1 / power)
        sides = found[f"{mark:g}"]
        assert sides["high"] == pytest.approx(at, rel=0.03)
        assert sides["low"] is None if 2 * at > MOST else sides["low"] == pytest.approx(-2 * at, rel=0.03)
    assert len(asked) < 75


def test_of_several_strengths_that_reach_a_mark_the_smallest_is_taken() -> None:
    def kl(s: float) -> float:  # up to 0.7 at 3, down to 0.2 at 6, and up again
        s = abs(s)
        return 0.7 * s / 3 if s < 3 else 0.7 - (s - 3) / 6 if s < 6 else 0.2 + (s - 6)

    found = kl_marks(looked(kl)[0])
    assert found["0.5"]["high"] == pytest.approx(0.5 * 3 / 0.7, rel=0.03)
    assert found["2"]["high"] == pytest.approx(7.8, rel=0.03)


def test_a_jump_over_a_mark_is_found_from_above_and_what_is_not_finite_reaches_none() -> None:
    jump = kl_marks(looked(lambda s: 0.05 if abs(s) < 1.37 else 5.0)[0])
    assert all(sides["high"] == pytest.approx(1.37, rel=0.002) for sides in jump.values())
    overflow = kl_marks(looked(lambda s: s * s if abs(s) < 1.3 else math.nan)[0])
    assert overflow["0.5"]["high"] == pytest.approx(0.5**0.5, rel=0.02) and overflow["2"]["high"] is None
    assert kl_marks(looked(lambda s: math.nan)[0])["0.1"] == {"low": None, "high": None}
    assert kl_marks(looked(lambda s: 3.0)[0])["0.1"] == {"low": None, "high": None}, "whatever the strength"


MARKS = {"0.1": {"low": -1.0, "high": 0.5}, "0.5": {"low": -2.0, "high": 1.0}, "2": {"low": None, "high": 2.0}}


def test_texts_break_at_the_smallest_strength_of_either_sign_for_the_reason_of_the_smaller() -> None:
    def why(s: float) -> str | None:
        return "perplexity" if s > 3.3 else "repetition" if s < -7 else None

    def of(strengths: list[float]) -> list[str | None]:
        return [why(strength) for strength in strengths]

    found = breaks(of, MARKS)
    assert found["why"] == "perplexity"
    assert 3.3 < found["high"] < 3.3 * 1.11 and 7 < -found["low"] < 7 * 1.11
    assert breaks(lambda s: [None] * len(s), MARKS) == {"low": None, "high": None, "why": None}
    beyond = breaks(lambda s: ["repetition" if one > 6.5 else None for one in s], MARKS)
    assert beyond["high"] is None, "no further than three times the last mark is looked"
    to_the_limit = breaks(lambda s: ["repetition" if one < -95 else None for one in s], MARKS)
    assert to_the_limit["low"] == pytest.approx(-MOST, rel=0.05), "up to the limit where there is no last mark"


# -- texts ------------------------------------------------------------------------------------------------------------


def written(lm: LM, change: Change) -> Written:
    bos = lm.tokenizer.bos_token_id
    ids = torch.tensor([[bos, *lm.tokenizer(PYTHON, add_special_tokens=False)["input_ids"][:T]]] * 3)
    return Written(lm, change, ids, {bos}, nothing)


def test_what_the_unsteered_model_would_not_write_breaks_by_its_perplexity(pico: LM) -> None:
    size = pico.activations(torch.tensor([[5, 6, 7, 8]]), HOOK).norm(dim=-1).median().item()
    texts = written(pico, adding(normalize(direction_of(192), dim=0), size))
    assert texts.why([0.01, 3.0, -3.0]) == [None, "perplexity", "perplexity"]


def test_a_token_over_and_over_breaks_by_repetition(pico: LM) -> None:
    [token] = pico.tokenizer("\n", add_special_tokens=False)["input_ids"]
    row = pico.model.get_output_embeddings().weight[token].detach().float()
    texts = written(pico, adding(normalize(row, dim=0), 10.0))
    assert texts.why([0.01, 10.0]) == [None, "repetition"]


def test_a_model_that_overflows_is_broken(pico: LM) -> None:
    texts = written(pico, adding(direction_of(192), 3e38))
    assert texts.why([1e-38, 100.0]) == [None, "perplexity"]


def test_all_of_a_short_context_is_written_in(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strength_range, "WRITTEN", 10**6)
    assert calibrate(lm, adding(direction_of(), 8.0), windows(), {0}, nothing)["kl"]["0.1"]["high"] is not None
