"""SAEs written in the layouts of others and read back: the same latents, and refused where there is no room for one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from formats import D, F, close, inputs, only, weights
from published import Here
from torch import Tensor

from mistudiod.engine.formats import FolderListing, Imported, find, read
from mistudiod.engine.formats.about import About, module_of
from mistudiod.engine.formats.writers import WRITERS, check, holders, write
from mistudiod.engine.rules import GatedRule, JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder

K = 6
ABOUT = About("mine", "blocks.3.hook_resid_post", "blocks.3.hook_resid_post", "gpt2", "gpt2", 128, 5.7)
RULES = ("topk", "standard", "jumprelu", "gated")


def an_sae(
    rule: str = "topk", centred: bool = True, d_out: int = D, unit: bool = True, **more: object
) -> SparseAutoencoder:
    """With ``more`` of its fields; a transcoder when they say so."""
    w = weights(unit=unit, d_out=d_out)
    made: dict[str, Rule] = {
        "topk": TopKRule(K),
        "standard": ReLURule(),
        "jumprelu": JumpReLURule(w["threshold"]),
        "gated": GatedRule(w["b_enc"], w["b_enc"] + 0.3, 0.2 * w["threshold"]),
    }
    kept = {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    fields = {"rule": made[rule], "centred": centred, "metadata": {"hook_name": ABOUT.hook}, **more}
    return SparseAutoencoder(**kept, **fields)  # type: ignore[arg-type]


def transcoder(rule: str, d_out: int = D, skip: bool = False) -> SparseAutoencoder:
    W_skip = torch.randn(d_out, D, generator=torch.Generator().manual_seed(7)) if skip else None
    return an_sae(rule, False, d_out, transcodes=True, W_skip=W_skip)


def back(folder: Path, scratch: Path) -> Imported:
    scratch.mkdir()
    (found,) = find(FolderListing(folder))
    return read(Here(FolderListing(folder), scratch), found)


def same(sae: SparseAutoencoder, read_back: SparseAutoencoder, x: Tensor) -> None:
    close(read_back.encode(x), sae.encode(x))
    close(read_back.decode(read_back.encode(x), x), sae.decode(sae.encode(x), x))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("layout", "rule"),
    [
        *(("saelens", rule) for rule in RULES),
        *(("dictionary_learning", rule) for rule in RULES),
        ("sparsify", "topk"),
        ("gemma_scope_npz", "jumprelu"),
        ("gemma_scope_npz", "standard"),
    ],
)
def test_what_is_written_is_read_with_the_same_latents(layout: str, rule: str, centred: bool, tmp_path: Path) -> None:
    sae = an_sae(rule, centred)
    notes = write(layout, sae, tmp_path / "made", ABOUT)
    found = back(tmp_path / "made", tmp_path / "scratch")
    same(sae, found.sae, inputs())
    assert layout.startswith(found.found.format) and found.sae.d_sae == F
    folded = found.sae.centred is not centred
    assert folded == any("b_enc" in note for note in notes)
    if layout != "gemma_scope_npz":  # which says of neither
        assert (found.hook, found.model) == (ABOUT.hook, None if layout == "saelens" else "gpt2")


@pytest.mark.parametrize(
    ("layout", "rule", "d_out", "skip"),
    [
        ("saelens", "jumprelu", D, False),
        ("saelens", "jumprelu", D + 3, True),
        ("saelens", "standard", D + 3, False),
        ("sparsify", "topk", D, False),
        ("sparsify", "topk", D, True),
    ],
)
def test_transcoders_too(layout: str, rule: str, d_out: int, skip: bool, tmp_path: Path) -> None:
    sae = transcoder(rule, d_out, skip)
    about = replace(ABOUT, hook="blocks.1.mlp.hook_in", hook_out="blocks.1.hook_mlp_out", family="llama", model="m")
    assert write(layout, sae, tmp_path / "made", about) == []
    found = back(tmp_path / "made", tmp_path / "scratch")
    same(sae, found.sae, inputs())
    if layout == "sparsify":
        assert found.found.path == "layers.1.mlp"
        assert (found.hook, found.hook_out, found.model) == (about.hook, about.hook_out, "m")


def test_rows_of_any_norm_choose_the_same_latents(tmp_path: Path) -> None:
    sae = an_sae("topk", unit=False)
    for layout in holders(sae):
        notes = write(layout, sae, tmp_path / layout, ABOUT)
        assert ("SAEBench" in " ".join(notes)) == (layout == "saelens")
        same(sae, back(tmp_path / layout, tmp_path / f"{layout}-scratch").sae, inputs())
    said = json.loads((tmp_path / "sparsify/h.3/cfg.json").read_text())
    assert said["normalize_decoder"] is False


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_what_is_normalized_as_it_runs_only_saelens_can_hold(norm: str, tmp_path: Path) -> None:
    for rule in ("topk", "jumprelu"):
        sae = an_sae(rule, norm=norm)
        assert holders(sae) == ["saelens"]
        for layout in WRITERS.keys() - {"saelens"}:
            with pytest.raises(ValueError, match=r": write it as saelens$"):
                write(layout, sae, tmp_path / "none", ABOUT)
        assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("sae", "can"),
    [
        (an_sae("topk"), ["saelens", "sparsify", "dictionary_learning"]),
        (an_sae("jumprelu"), ["saelens", "dictionary_learning", "gemma_scope_npz"]),
        (an_sae("gated"), ["saelens", "dictionary_learning"]),
        (transcoder("topk"), ["sparsify"]),
        (transcoder("jumprelu"), ["saelens"]),
        (transcoder("topk", D + 3), []),
    ],
    ids=["topk", "jumprelu", "gated", "topk transcoder", "jumprelu transcoder", "topk transcoder to another width"],
)
def test_a_layout_without_room_says_why_and_which_has(sae: SparseAutoencoder, can: list[str]) -> None:
    assert holders(sae) == can
    for layout in WRITERS:
        if layout in can:
            check(layout, sae)
            continue
        expected = " or ".join(can) if can else "no layout of others can"
        with pytest.raises(ValueError, match=expected) as refused:
            check(layout, sae)
        assert str(refused.value).count(". ") == 0


def test_a_latent_that_adds_nothing_is_no_row_that_can_be_divided_by_its_norm(tmp_path: Path) -> None:
    for rule in RULES:
        sae = an_sae(rule)
        sae.W_dec[5] = 0
        for layout in holders(sae):
            write(layout, sae, tmp_path / rule / layout, ABOUT)
            same(sae, back(tmp_path / rule / layout, tmp_path / rule / f"{layout}-scratch").sae, inputs())
        if rule == "standard":
            with pytest.raises(ValueError, match="of 1 rows here is 0: write it as saelens or gemma_scope_npz"):
                check("dictionary_learning", sae)


@pytest.mark.parametrize(
    ("hook", "family", "place"),
    [
        ("blocks.2.hook_resid_pre", "llama", "layers.1"),
        ("blocks.2.hook_mlp_out", "gpt_neox", "layers.2.mlp"),
        ("blocks.2.hook_attn_out", "gpt2", "h.2.attn"),
        ("blocks.2.hook_mlp_out", "gemma2", "layers.2.post_feedforward_layernorm"),
        ("blocks.0.attn.hook_z", "llama", "blocks.0.attn.hook_z"),
        ("../../elsewhere", "llama", "elsewhere"),
        ("blocks.2.hook_resid_post", None, "blocks.2.hook_resid_post"),
    ],
)
def test_a_sparsify_folder_is_called_after_its_module(
    hook: str, family: str | None, place: str, tmp_path: Path
) -> None:
    about = replace(
        ABOUT, hook=hook, hook_out=hook, family=family, model="google/gemma-2-2b" if family == "gemma2" else "m"
    )
    notes = write("sparsify", an_sae(), tmp_path / "made", about)
    assert (tmp_path / "made" / place / "sae.safetensors").is_file()
    found = only(tmp_path / "made")
    known = module_of(family, hook, "out")
    assert (found.hook == hook) == (known is not None)
    assert bool(notes) == (known is None)


@pytest.mark.parametrize(
    ("hook", "read_as"),
    [
        ("blocks.2.hook_resid_pre", "blocks.1.hook_resid_post"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("blocks.2.hook_mlp_out", "blocks.2.hook_mlp_out"),
        ("blocks.2.hook_attn_out", "blocks.2.hook_attn_out"),
        ("blocks.2.attn.hook_z", "blocks.2.attn.hook_z"),
        ("blocks.2.mlp.hook_post", "blocks.2.mlp.hook_post"),
        ("blocks.2.mlp.hook_in", "blocks.2.mlp.hook_in"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_dictionary_learning_says_where_it_reads(hook: str, read_as: str, family: str, tmp_path: Path) -> None:
    write("dictionary_learning", an_sae(), tmp_path / "made", replace(ABOUT, hook=hook, family=family))
    assert back(tmp_path / "made", tmp_path / "scratch").hook == read_as


def test_a_gemma_scope_file_lies_where_its_path_says_what_it_is(tmp_path: Path) -> None:
    write("gemma_scope_npz", an_sae("jumprelu"), tmp_path / "made", ABOUT)
    found = only(tmp_path / "made")
    assert found.found.path == f"layer_3/width_{F}/average_l0_6"
    assert (found.found.layer, found.found.l0) == (3, 6.0)
