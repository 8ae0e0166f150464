"""Gemma Scope and Gemma Scope 2, written from their descriptions and read back."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from formats import D, F, inputs, only, same_everywhere, weights, write_folder
from torch import Tensor

from mistudiod.engine.formats import FolderListing, find, read


def write_npz(path: Path, tensors: dict[str, Tensor], fortran: bool = False, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {name: np.asarray(tensor.numpy(), order="F" if fortran else "C") for name, tensor in tensors.items()}
    np.savez(path, **named, **arrays)


def jump(w: dict[str, Tensor], x: Tensor) -> Tensor:
    pre = x @ w["W_enc"] + w["b_enc"]
    return pre.relu() * (pre > w["threshold"])


@pytest.mark.parametrize(
    ("repo", "hook", "hook_out"),
    [
        ("gemma-scope-2b-pt-res", "blocks.12.hook_resid_post", None),
        ("gemma-scope-2b-pt-mlp", "blocks.12.hook_mlp_out", None),
        ("gemma-scope-9b-pt-att", "blocks.12.attn.hook_z", None),
        ("gemma-scope-9b-it-res", "blocks.12.hook_resid_post", None),
        ("gemma-scope-2b-pt-transcoders", "blocks.12.ln2.hook_normalized", "blocks.12.hook_mlp_out"),
    ],
)
def test_gemma_scope_does_not_subtract_b_dec(tmp_path: Path, repo: str, hook: str, hook_out: str | None) -> None:
    w, x = weights(), inputs()
    write_npz(tmp_path / repo / "layer_12/width_65k/average_l0_82/params.npz", w)
    found = only(tmp_path / repo)
    z = jump(w, x)
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert (found.hook, found.hook_out, found.sae.transcodes) == (hook, hook_out or hook, hook_out is not None)
    size = repo.split("-")[2]
    assert found.model == f"gemma-2-{size}" + ("-it" if "-it-" in repo else "")
    assert (found.found.path, found.found.layer, found.found.l0) == ("layer_12/width_65k/average_l0_82", 12, 82)
    assert (found.context, found.bos, found.declared) == (1024, True, {"l0": 82.0})


def test_arrays_may_lie_the_other_way_round_in_memory_and_have_lower_case_names(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    write_npz(tmp_path / "params.npz", {name.lower(): tensor for name, tensor in w.items()}, fortran=True)
    found, z = only(tmp_path / "params.npz"), jump(w, x)
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert found.hook is None and "which hook it reads" in found.notes[0]


def test_embeddings_are_scaled_as_the_model_scales_them(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    path = tmp_path / "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6/params.npz"
    write_npz(path, w)
    found, z = only(tmp_path / "gemma-scope-2b-pt-res"), jump(w, x / D**0.5)
    same_everywhere(found, x, z, (z @ w["W_dec"] + w["b_dec"]) * D**0.5, tmp_path / "ours")
    assert found.hook == "blocks.0.hook_resid_pre" and "scale was folded" in found.notes[0]


def test_a_large_repo_is_listed_by_its_paths(tmp_path: Path) -> None:
    for layer in range(26):
        for l0 in (20, 80, 300):
            write_npz(tmp_path / f"gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_{l0}/params.npz", weights())
    found = find(FolderListing(tmp_path / "gemma-scope-2b-pt-res"))
    assert len(found) == 78 and [one.l0 for one in found[:3]] == [20, 80, 300]
    assert {one.hook for one in found if one.layer == 25} == {"blocks.25.hook_resid_post"}
    assert found[-1].width == 16384


def bomb(path: Path) -> None:
    """Two GB of zeros in two MB."""
    header = str({"descr": "<f4", "fortran_order": False, "shape": (1 << 29,)}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("W_enc.npy", "w") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(64):
            file.write(bytes(1 << 20))


def test_an_npz_that_would_unpack_into_far_more_is_refused(tmp_path: Path) -> None:
    bomb(tmp_path / "params.npz")
    with pytest.raises(ValueError, match=r"20 times its size or more: no SAE does"):
        only(tmp_path)


def without(key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights().items() if name != key}


def test_damaged_npz_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    write_npz(path, without("b_enc"), b_enc=np.full(F, np.nan, np.float32))
    with pytest.raises(ValueError, match="b_enc that is not all finite"):
        only(path)
    write_npz(path, without("b_enc"), b_enc=np.array([object()], object))
    with pytest.raises(ValueError, match="cannot be weights"):
        only(path)
    write_npz(path, without("b_enc") | {"b_enc": torch.zeros(F - 1)})
    with pytest.raises(ValueError, match=rf"b_enc of shape \({F - 1},\), and \({F},\) is expected"):
        only(path)
    write_npz(path, weights())
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    with pytest.raises(ValueError, match="damaged or cut short"):
        only(path)
    path.write_bytes(whole[:3000] + bytes(16) + whole[3016:])
    with pytest.raises(ValueError, match="damaged or cut short: Bad CRC"):
        only(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged or cut short"):
        only(path)


def test_a_header_that_says_more_than_there_is_is_refused(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((4, 4), np.float32))
    data = array.getvalue().replace(b"(4, 4)", b"(9, 9)")
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("W_enc.npy", data)
    with pytest.raises(ValueError, match="not as long as its header says"):
        only(tmp_path)


def write_second(folder: Path, w: dict[str, Tensor], config: dict[str, object] | None, **more: Tensor) -> None:
    tensors = {name.lower(): one for name, one in w.items()} | more
    write_folder(folder, config, tensors, named="config.json", weights="params.safetensors")


@pytest.mark.parametrize(
    ("point", "hook"),
    [
        ("model.layers.9.output", "blocks.9.hook_resid_post"),
        ("model.layers.9.self_attn.o_proj.input", "blocks.9.attn.hook_z"),
        ("model.language_model.layers.9.post_feedforward_layernorm.output", "blocks.9.hook_mlp_out"),
    ],
)
def test_gemma_scope_2_names_the_modules_of_the_model(tmp_path: Path, point: str, hook: str) -> None:
    w, x = weights(), inputs()
    folder = tmp_path / "gemma-scope-2-1b-pt/resid_post/layer_9_width_16k_l0_small"
    write_second(folder, w, {"architecture": "jump_relu", "model_name": "gemma-3-1b-pt", "hf_hook_point_in": point})
    found, z = only(tmp_path), jump(w, x)
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert (found.hook, found.hook_out, found.model, found.found.layer) == (hook, hook, "gemma-3-1b-pt", 9)
    assert found.sae.metadata["hf_hook_name"] == point


@pytest.mark.parametrize(
    ("said", "name"),
    [("gemma-v3-1b-pt", "gemma-3-1b-pt"), ("gemma-3-270m-pt", "gemma-3-270m"), ("gemma-v3-4b-it", "gemma-3-4b-it")],
)
def test_gemma_scope_2_calls_models_by_names_that_the_hub_has_not(tmp_path: Path, said: str, name: str) -> None:
    folder = tmp_path / "resid_post/layer_9_width_16k_l0_small"
    write_second(folder, weights(), {"model_name": said, "hf_hook_point_in": "model.layers.9.output"})
    assert only(tmp_path).model == name


@pytest.mark.parametrize(
    ("config", "more", "says"),
    [
        ({"architecture": "topk"}, {}, "is 'topk', and only jump_relu is understood"),
        ({"affine_connection": True}, {}, "do not agree on whether it is affine"),
        ({"affine_connection": False}, {"affine_skip_connection": torch.ones(D, D)}, "do not agree on whether it is"),
        ({}, {"scale": torch.ones(3)}, "also holds scale, which no Gemma Scope 2 SAE has"),
    ],
)
def test_what_gemma_scope_2_says_and_holds_must_agree(
    tmp_path: Path, config: dict[str, object], more: dict[str, Tensor], says: str
) -> None:
    write_second(tmp_path, weights(), {"hf_hook_point_in": "model.layers.9.output", **config}, **more)
    with pytest.raises(ValueError, match=says):
        only(tmp_path)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("with_config", [False, True])
def test_gemma_scope_2_transcoders_may_be_affine(tmp_path: Path, affine: bool, with_config: bool) -> None:
    w, x = weights(), inputs()
    straight = torch.randn(D, D, generator=torch.Generator().manual_seed(6))
    folder = tmp_path / f"gemma-scope-2-270m-it/transcoder_all/layer_3_width_16k_l0_big{'_affine' if affine else ''}"
    config: dict[str, object] = {
        "architecture": "jump_relu",
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
        "affine_connection": affine,
    }
    more = {"affine_skip_connection": straight} if affine else {}
    write_second(folder, w, config if with_config else None, **more)
    found, z = only(tmp_path), jump(w, x)
    rebuilt = z @ w["W_dec"] + w["b_dec"] + (x @ straight if affine else 0)
    same_everywhere(found, x, z, rebuilt, tmp_path / "ours")
    assert (found.hook, found.hook_out) == ("blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out")
    assert found.model == "gemma-3-270m-it" and found.sae.transcodes


def test_a_cross_layer_transcoder_is_refused_by_name(tmp_path: Path) -> None:
    w = {name.lower(): one for name, one in weights().items()} | {"w_dec": torch.zeros(F, 4, D)}
    write_folder(tmp_path, None, w, weights="layer_0.safetensors")
    listing = FolderListing(tmp_path)
    (found,) = find(listing)
    with pytest.raises(ValueError, match="is a cross-layer transcoder"):
        read(listing, found)
