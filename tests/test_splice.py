"""What an SAE costs a language model, held against whole forward passes and their logits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensors_made import Made
from tiny_models import CONTEXT, FAMILIES, VOCABULARY, tiny_model
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from mistudiod.engine import document_sums
from mistudiod.engine import lm as lm_module
from mistudiod.engine.document_sums import rebuilding
from mistudiod.engine.hooks import hooked
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.measure import Meter
from mistudiod.engine.rules import JumpReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import NO_FIGURES, PASSES, Loss, Splice, Units

T = 12
HOOK, OUT = "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out"
SPECIAL = 0


class Text:
    """Windows of random tokens: BOS first, a separator here and there, padding at some ends. All three are token 0."""

    def __init__(self, windows: int = 7, seed: int = 0) -> None:
        self.context = T
        self.all = np.random.default_rng(seed).integers(1, VOCABULARY, (windows, T))
        self.all[:, 0] = SPECIAL
        self.all[1, 5] = self.all[2, 8] = SPECIAL
        self.all[3, 9:] = SPECIAL

    def rows(self, indices):
        return self.all[np.asarray(indices)]

    def special_mask(self, rows):
        return rows == SPECIAL


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return load_lm(tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny"))


def whole(lm: LM, **given: object) -> Splice:
    return Splice(lm, Text(), np.arange(7), [HOOK, OUT], **given)  # type: ignore[arg-type]


def sae_of(width: int = 32, k: int = 6) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(2)
    W_dec = torch.nn.functional.normalize(torch.randn(96, width, generator=generator))
    return SparseAutoencoder(W_dec.t().clone(), torch.zeros(96), W_dec, torch.zeros(width), TopKRule(k))


def by_hand(lm: LM, hook: str, replacement: Tensor | None) -> tuple[float, float, int]:
    """Cross-entropy and KL(clean || replaced), position by position, from whole logits."""
    ids = torch.from_numpy(Text().all)

    def put(x: Tensor) -> Tensor:
        y = x.clone()
        y[ids != SPECIAL] = replacement[ids != SPECIAL]  # type: ignore[index]
        return y

    with torch.no_grad():
        clean = lm.model(input_ids=ids).logits
        with hooked(lm.model, {hook: put} if replacement is not None else {}):
            logits = lm.model(input_ids=ids).logits
    losses, kls = [], []
    for window in range(len(ids)):
        for position in range(T - 1):
            if SPECIAL in (ids[window, position], ids[window, position + 1]):
                continue
            one, other = clean[window, position].double(), logits[window, position].double()
            losses.append(cross_entropy(other, ids[window, position + 1]).item())
            kls.append(kl_div(log_softmax(other, 0), log_softmax(one, 0), reduction="sum", log_target=True).item())
    return float(np.mean(losses)), float(np.mean(kls)), len(losses)


def values_at(lm: LM, hook: str) -> Tensor:
    return lm.activations(torch.from_numpy(Text().all), hook)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_whole_logits_in_every_family(family: str, tmp_path: Path) -> None:
    lm = load_lm(tiny_model(family, tmp_path / family))
    x, sae = values_at(lm, HOOK), sae_of()
    rebuilt = sae.decode(sae.encode(x.flatten(0, 1))).view_as(x)
    found = whole(lm).loss(HOOK, lambda x, y: sae.decode(sae.encode(x)))
    kept = torch.from_numpy(Text().all != SPECIAL)
    mean = x[kept].double().mean(0).float().expand_as(x)
    clean, _, tokens = by_hand(lm, HOOK, None)
    spliced, kl, _ = by_hand(lm, HOOK, rebuilt)
    expected = Loss(clean, spliced, kl, by_hand(lm, HOOK, 0 * x)[0], by_hand(lm, HOOK, mean)[0], tokens)
    for field in dataclasses.fields(Loss):
        assert getattr(found, field.name) == pytest.approx(getattr(expected, field.name), rel=1e-4, abs=1e-5), field


def test_a_perfect_reconstruction_costs_nothing_and_the_mean_recovers_nothing(lm: LM) -> None:
    spliced = whole(lm)
    perfect = spliced.loss(HOOK, lambda x, y: y)
    assert perfect.spliced == pytest.approx(perfect.clean, abs=1e-6) and perfect.kl == pytest.approx(0, abs=1e-6)
    assert perfect.figures()["ce_recovered_zero"] == pytest.approx(1, abs=1e-4)
    mean = values_at(lm, HOOK)[torch.from_numpy(Text().all) != SPECIAL].mean(0)
    figures = spliced.loss(HOOK, lambda x, y: mean.expand_as(y)).figures()
    assert figures["ce_recovered_mean"] is None or figures["ce_recovered_mean"] == pytest.approx(0, abs=1e-3)


def test_a_transcoder_rebuilds_one_hook_from_another(lm: LM) -> None:
    x, y = values_at(lm, HOOK), values_at(lm, OUT)
    found = whole(lm).loss("blocks.1.hook_mlp_out", lambda x, y: x)
    assert found.kl == pytest.approx(0, abs=1e-6)
    halved = whole(lm).loss(HOOK, lambda x, y: 0.5 * y, OUT)
    spliced, kl, _ = by_hand(lm, OUT, 0.5 * y)
    assert (halved.spliced, halved.kl) == (pytest.approx(spliced, rel=1e-5), pytest.approx(kl, rel=1e-3, abs=1e-6))
    read = whole(lm).loss(HOOK, lambda x, y: x, OUT)
    assert read.spliced == pytest.approx(by_hand(lm, OUT, x)[0], rel=1e-5)


def test_special_tokens_are_neither_replaced_nor_counted(lm: LM) -> None:
    seen: list[int] = []

    def count(x: Tensor, y: Tensor) -> Tensor:
        seen.append(len(x))
        return y

    found = whole(lm, lm_tokens=10**6).loss(HOOK, count)
    ids = Text().all
    assert seen[-1] == (ids != SPECIAL).sum()
    assert found.tokens == ((ids[:, :-1] != SPECIAL) & (ids[:, 1:] != SPECIAL)).sum()


def test_outliers_are_neither_replaced_nor_counted(lm: LM) -> None:
    norms = torch.linalg.vector_norm(values_at(lm, HOOK), dim=-1)
    text = torch.from_numpy(Text().all != SPECIAL)
    most = norms[text].median().item()
    seen: list[Tensor] = []
    spliced = whole(lm, outlier_norms=[most, math.inf], lm_tokens=10**6)
    found = spliced.loss(HOOK, lambda x, y: seen.append(x) or 0 * y)  # type: ignore[func-returns-value]
    kept = text & (norms <= most)
    assert len(seen[-1]) == kept.sum() and torch.linalg.vector_norm(seen[-1], dim=1).max() <= most
    assert found.tokens == (kept[:, :-1] & text[:, 1:]).sum() < whole(lm).loss(HOOK, lambda x, y: y).tokens


def test_how_much_goes_through_at_once_makes_no_difference(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = sae_of()
    expected = whole(lm, lm_tokens=10**6).loss(HOOK, Meter(sae).add)
    monkeypatch.setattr(lm_module, "LOGIT_ELEMENTS", 5 * VOCABULARY)
    found = whole(lm, lm_tokens=2 * T).loss(HOOK, Meter(sae).add)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected), rel=1e-5)


def test_no_more_logits_exist_than_of_one_piece(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_module, "LOGIT_ELEMENTS", 5 * VOCABULARY)
    rows: list[int] = []
    head = lm.model.get_output_embeddings()
    with_head = head.register_forward_hook(lambda module, args, out: rows.append(out.numel() // VOCABULARY))
    try:
        whole(lm).loss(HOOK, lambda x, y: y)
    finally:
        with_head.remove()
    assert max(rows) == 5


def test_ablations_are_read_once(lm: LM) -> None:
    passes: list[int] = []
    counting = lm.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    try:
        spliced = whole(lm, lm_tokens=10**6)
        spliced.loss(HOOK, lambda x, y: y)
        first = len(passes)
        spliced.loss(HOOK, lambda x, y: y)
        assert len(passes) - first == 2 < first
    finally:
        counting.remove()


def test_the_meter_measures_in_the_same_pass(lm: LM) -> None:
    meter = Meter(sae_of())
    whole(lm).loss(HOOK, meter.add)
    x = values_at(lm, HOOK)[torch.from_numpy(Text().all != SPECIAL)]
    alone = Meter(sae_of())
    alone.add(x, x)
    assert meter.measures().fvu == pytest.approx(alone.measures().fvu, rel=1e-5)
    assert meter.measures().tokens == len(x)


def test_what_is_rebuilt_at_once_is_bounded_where_any_number_of_latents_may_fire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sae, x = sae_of(), torch.randn(70, 32, generator=torch.Generator().manual_seed(1))
    for rule in (sae.rule, JumpReLURule(torch.zeros(96))):
        sae.rule = rule
        whole_x = Meter(sae).add(x, x)
        monkeypatch.setattr(document_sums, "ROWS", 16)
        monkeypatch.setattr(document_sums, "DENSE_ELEMENTS", 9 * 96)
        with Made() as made:
            rebuilt = rebuilding(sae)(x, x)
        torch.testing.assert_close(rebuilt, whole_x)
        assert made.largest <= max(16 * 96, x.numel())
        assert rebuilding(sae)(x[:0], x[:0]).shape == (0, 32)
        monkeypatch.undo()


def test_windows_without_text_are_refused(lm: LM) -> None:
    text = Text()
    text.all[:, :] = SPECIAL
    with pytest.raises(ValueError, match="no token of the held-out windows has text after it"):
        Splice(lm, text, np.arange(7), [HOOK]).loss(HOOK, lambda x, y: y)


def test_without_a_whole_model_every_figure_is_unknown() -> None:
    assert set(NO_FIGURES) == set(Loss(1, 2, 0, 3, 4, 5).figures()) and set(NO_FIGURES.values()) == {None}


def test_what_an_ablation_does_not_cost_cannot_be_recovered() -> None:
    figures = Loss(clean=2.0, spliced=2.5, kl=0.1, zero=4.0, mean=1.9, tokens=10).figures()
    assert figures["ce_delta"] == 0.5 and figures["ce_recovered_zero"] == 0.75 and figures["ce_recovered_mean"] is None


def test_half_precision_is_compared_in_float32(tmp_path: Path) -> None:
    lm = load_lm(tiny_model("gpt2", tmp_path / "half", n_positions=CONTEXT), precision="bf16")
    found = Splice(lm, Text(), np.arange(7), [HOOK]).loss(HOOK, lambda x, y: y)
    assert found.spliced == found.clean and found.kl == 0


def test_losses_by_document_add_up_to_the_loss_and_leave_it_as_it_is_to_the_bit(lm: LM) -> None:
    documents = np.arange(7 * T).reshape(7, T) // 5
    units = Units(lambda numbers: documents[numbers], int(documents.max()) + 1)
    rebuild = Meter(sae_of()).add
    for given in ({}, {"lm_tokens": 30}):
        plain = whole(lm, **given).loss(HOOK, rebuild)
        found, sums = whole(lm, units=units, **given).loss_by_document(HOOK, rebuild)
        assert found == plain
        assert sums.tokens.sum() == found.tokens
        for name in ("clean", "spliced", "kl", "zero", "mean"):
            assert getattr(sums, name).sum() / found.tokens == pytest.approx(getattr(found, name), rel=1e-6), name


def test_each_pass_through_the_text_is_told(lm: LM) -> None:
    told: list[int] = []
    whole(lm, heard=told.append).loss(HOOK, lambda x, y: y)
    assert sum(told) == PASSES * 7 * T
