"""A feature's logits against what adding its direction does to a model's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mistudiod.engine import logit_lens
from mistudiod.engine.hooks import hooked
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.logit_lens import LogitLens
from mistudiod.facts import FAMILIES, UnknownModel
from tests.tiny_models import D_MODEL, LAYERS, VOCABULARY, tiny_model
from tests.tiny_models import FAMILIES as TINY

HOOK = f"blocks.{LAYERS - 1}.hook_resid_post"


def _lens(folder: Path, W_dec: Tensor, hook: str = HOOK) -> LogitLens:
    lens = LogitLens.of(folder, W_dec, hook, VOCABULARY)
    assert lens is not None
    return lens


def _change(lm: LM, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the model's own norm and head change the logits of x (d_model,) for ``direction`` added to it, with
    the norm's divisor held as it was; and that divisor."""
    family = FAMILIES[lm.facts.family]
    norm = lm.model.base_model.get_submodule(family.norm.removesuffix(".weight"))
    bias = norm(torch.zeros_like(x))
    (before, divisor), (after, other) = ((norm(v) - bias, _divisor(v, family.norm_centres)) for v in (x, x + direction))
    return lm.model.get_output_embeddings()(after * other / divisor - before), divisor


def _divisor(x: Tensor, centres: bool) -> Tensor:
    return (x - x.mean() if centres else x).square().mean().sqrt()


@pytest.mark.parametrize("family", TINY)
@torch.no_grad()
def test_they_are_what_adding_the_direction_does_to_the_logits(family: str, tmp_path: Path) -> None:
    uncapped = {"final_logit_softcapping": None} if family == "gemma2" else {}
    lm = load_lm(tiny_model(family, tmp_path, **uncapped))
    directions = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(1))
    found = _lens(tmp_path, directions)._products(0, 5)
    ids = torch.tensor([[3, 7, 50, 9, 120]])
    x = lm.activations(ids, HOOK)[0, -1]
    with hooked(lm.model, {HOOK: lambda at: at + 1e-3 * directions[0]}):
        moved = lm.model(ids).logits[0, -1]
    torch.testing.assert_close(
        moved - lm.model(ids).logits[0, -1], _moved(lm, x, 1e-3 * directions[0]), atol=1e-5, rtol=0
    )
    for direction, logits in zip(directions, found, strict=True):
        change, divisor = _change(lm, x, direction)
        torch.testing.assert_close(logits / divisor, change, rtol=1e-3, atol=1e-3)


def _moved(lm: LM, x: Tensor, direction: Tensor) -> Tensor:
    """The same without holding the divisor: that norm and head are those of the model."""
    norm = lm.model.base_model.get_submodule(FAMILIES[lm.facts.family].norm.removesuffix(".weight"))
    head = lm.model.get_output_embeddings()
    change: Tensor = head(norm(x + direction)) - head(norm(x))
    return change


@pytest.mark.parametrize("slice_rows", [7, 10_000])
def test_top_bottom_and_histogram_are_those_of_all_logits(
    slice_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load_lm(tiny_model("gpt2", tmp_path))
    monkeypatch.setattr(logit_lens, "_SLICE_BYTES", slice_rows * 4 * D_MODEL)
    monkeypatch.setattr(logit_lens, "_TILE_BYTES", {"cpu": 3 * 4 * VOCABULARY})
    directions = torch.randn(11, D_MODEL, generator=torch.Generator().manual_seed(2))
    directions[4] = 0
    shown = _lens(tmp_path, directions).logits(1, 11)
    norm, head = lm.model.transformer.ln_f.weight, lm.model.lm_head.weight
    centred = directions - directions.mean(1, keepdim=True)
    expected = ((centred * norm) @ head.T)[1:].double().numpy()
    assert len(shown) == 10
    for one, row in zip(shown, expected, strict=True):
        order = np.argsort(-row, kind="stable")
        np.testing.assert_allclose(one.top_values, row[order[:20]], atol=1e-5)
        np.testing.assert_allclose(one.bottom_values, row[order[::-1][:20]], atol=1e-5)
        np.testing.assert_allclose(row[one.top], one.top_values, atol=1e-5)
        np.testing.assert_allclose(row[one.bottom], one.bottom_values, atol=1e-5)
        assert (one.low, one.high) == (one.bottom_values[0], one.top_values[0])
        assert one.counts.sum() == VOCABULARY and len(one.counts) == 50
        if one.high > one.low:  # an edge may fall to either side of a logit
            assert np.abs(one.counts - np.histogram(row, 50)[0].astype(int)).sum() <= 2
    assert shown[3].counts[0] == VOCABULARY and shown[3].low == shown[3].high == 0


@pytest.mark.parametrize("point", ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"])
def test_what_is_added_to_the_residual_stream_has_logits(point: str, tmp_path: Path) -> None:
    _lens(tiny_model("llama", tmp_path), torch.randn(2, D_MODEL), f"blocks.1.{point}")


@pytest.mark.parametrize("point", ["attn.hook_z", "mlp.hook_in", "mlp.hook_post"])
def test_what_has_a_basis_of_its_own_has_none(point: str, tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path)
    assert LogitLens.of(folder, torch.randn(2, D_MODEL), f"blocks.1.{point}", VOCABULARY) is None


def test_rows_of_the_embedding_beyond_the_tokenizers_tokens_are_left_out(tmp_path: Path) -> None:
    folder = tiny_model("gpt_neox", tmp_path)
    lens = LogitLens.of(folder, torch.randn(2, D_MODEL), HOOK, 100)
    assert lens is not None
    for one in lens.logits(0, 2):
        assert one.top.max() < 100 and one.bottom.max() < 100 and one.counts.sum() == 100


def test_a_head_that_is_stored_quantised_gives_none_a_plain_one_beside_quantised_blocks_does(
    tmp_path: Path,
) -> None:
    folder = tiny_model("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        _as_int8(weights, name)
    save_file(weights, folder / "model.safetensors")
    _lens(folder, torch.randn(2, D_MODEL))
    _as_int8(weights, "lm_head.weight")
    save_file(weights, folder / "model.safetensors")
    assert LogitLens.of(folder, torch.randn(2, D_MODEL), HOOK, VOCABULARY) is None


def _as_int8(weights: dict[str, Tensor], name: str) -> None:
    scale = weights[name].abs().amax(1)
    weights[name] = (weights[name] / scale[:, None] * 127).round().to(torch.int8)
    weights[name.removesuffix("weight") + "SCB"] = scale


def test_weights_without_a_last_norm_are_refused(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UnknownModel, match="not complete"):
        LogitLens.of(folder, torch.randn(2, D_MODEL), HOOK, VOCABULARY)
