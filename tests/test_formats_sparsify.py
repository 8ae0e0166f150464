"""EleutherAI's sparsify and the first miStudio, written from their descriptions and read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from formats import D, F, inputs, only, only_largest, same_everywhere, weights, write_folder
from torch import Tensor

from mistudiod.engine.formats import FolderListing, find

NAMES = {"weights": "sae.safetensors"}


def sparsify_config(**more: object) -> dict[str, object]:
    found: dict[str, object] = {"activation": "topk", "expansion_factor": F // D, "normalize_decoder": True}
    found |= {"num_latents": 0, "k": 6, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D}
    return found | more


def linear(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"encoder.weight": w["W_enc"].t(), "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}


@pytest.mark.parametrize(
    ("folder", "hook"),
    [
        ("layers.10", "blocks.10.hook_resid_post"),
        ("h.5.mlp", "blocks.5.hook_mlp_out"),
        ("layers.3.attention/seed2", "blocks.3.hook_attn_out"),
        ("embed_tokens", None),
    ],
)
@pytest.mark.parametrize("unit", [False, True])
def test_an_sae_subtracts_b_dec_and_takes_the_k_largest(
    tmp_path: Path, folder: str, hook: str | None, unit: bool
) -> None:
    w, x = weights(unit=unit), inputs()
    write_folder(tmp_path / "run" / folder, sparsify_config(num_latents=F, multi_topk=True), linear(w), **NAMES)
    (tmp_path / "run/config.json").write_text(json.dumps({"model": "EleutherAI/pythia-160m", "batch_size": 32}))
    found = only(tmp_path / "run")
    z = only_largest((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 6)
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert (found.hook, found.hook_out, found.model) == (hook, hook, "EleutherAI/pythia-160m")
    assert (found.found.path, found.declared, found.bos) == (folder, {"l0": 6.0}, None)
    assert "multi_topk" in found.notes[-1] and ("is no hook that is known" in found.notes[0]) == (hook is None)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_reads_what_goes_into_the_module(tmp_path: Path, skip: bool) -> None:
    w, x = weights(), inputs()
    W_skip = torch.randn(D, D, generator=torch.Generator().manual_seed(7))
    said = sparsify_config(transcode=True, skip_connection=skip)
    write_folder(tmp_path / "layers.4.mlp", said, linear(w) | ({"W_skip": W_skip} if skip else {}), **NAMES)
    found = only(tmp_path / "layers.4.mlp")
    z = only_largest(x @ w["W_enc"] + w["b_enc"], 6)
    rebuilt = z @ w["W_dec"] + w["b_dec"] + (x @ W_skip.t() if skip else 0)
    same_everywhere(found, x, z, rebuilt, tmp_path / "ours")
    assert (found.hook, found.hook_out) == ("blocks.4.mlp.hook_in", "blocks.4.hook_mlp_out")
    assert "SAELens has no transcoder" in found.notes[0]


def test_the_bare_mlp_of_gemma_2_is_no_hook_of_ours(tmp_path: Path) -> None:
    write_folder(tmp_path / "layers.4.mlp", sparsify_config(), linear(weights()), **NAMES)
    (tmp_path / "config.json").write_text('{"model": "google/gemma-2-2b"}')
    assert only(tmp_path).hook is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"signed": True}, "is signed: latents are the k of largest magnitude"),
        ({"activation": "groupmax"}, "activation groupmax, and only topk"),
        ({"skip_connection": True}, "an SAE with a skip connection"),
        ({"skip_connection": True, "transcode": True}, "do not agree on whether there is a skip"),
        ({"k": F + 1}, f"and k {F + 1}"),
        ({"num_latents": F + 8}, f"says {F + 8} latents"),
        ({"d_in": D + 1, "num_latents": F}, rf"encoder.weight of shape \({F}, {D}\), and \({F}, {D + 1}\) is expected"),
    ],
)
def test_what_sparsify_has_and_we_have_not_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    write_folder(tmp_path, sparsify_config(**changes), linear(weights()), **NAMES)
    with pytest.raises(ValueError, match=says):
        only(tmp_path)


def test_a_tensor_that_no_such_sae_has_is_refused_and_not_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, sparsify_config(), linear(weights()) | {"post_enc": weights()["b_enc"]}, **NAMES)
    with pytest.raises(ValueError, match="also holds post_enc, which no such SAE has"):
        only(tmp_path)


def test_the_file_alone_is_named_after_its_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "layers.4", sparsify_config(), linear(weights()), **NAMES)
    assert only(tmp_path / "layers.4/sae.safetensors").hook == "blocks.4.hook_resid_post"


def community(architecture: str, **more: object) -> dict[str, object]:
    """The cfg.json that the first miStudio wrote, wrong where it was wrong."""
    return {
        "model_name": "pico",
        "hook_point": "blocks.2.hook_resid_post",
        "hook_name": "blocks.2.hook_resid_post",
        "hook_point_layer": 2,
        "d_in": D,
        "d_sae": F,
        "expansion_factor": F / D,
        "architecture": architecture,
        "activation_fn_str": "relu",
        "normalize_activations": "constant_norm_rescale",
        "apply_b_dec_to_input": False,
        "finetuning_scaling_factor": False,
        "context_size": 128,
        "prepend_bos": True,
        "dtype": "torch.float32",
        "mistudio_training_id": "train_1",
        "mistudio_checkpoint_step": 1000,
        "extra_metadata": {"hf_model_name": "some/pico", "top_k": None},
    } | more


def exported(w: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec", *names)}


def native(w: dict[str, Tensor], jump: bool = False) -> dict[str, Tensor]:
    if jump:
        named = {"W_enc": w["W_enc"].t(), "b_enc": w["b_enc"], "W_dec": w["W_dec"].t(), "b_dec": w["b_dec"]}
        named["activation.log_threshold"] = w["threshold"].log()
    else:
        named = {"encoder.weight": w["W_enc"].t(), "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].t()}
    return {f"model.{name}": one for name, one in named.items()} | {"optimizer.step": torch.zeros(())}


def original(w: dict[str, Tensor], x: Tensor, k: int | None = None, jump: bool = False) -> tuple[Tensor, Tensor]:
    """What the first miStudio computed: latents and reconstruction, every token scaled to the norm sqrt(d)."""
    scale = math.sqrt(D) / x.norm(dim=1, keepdim=True)
    pre = (x * scale - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    z = only_largest(pre, k) if k else pre.relu() * (pre > w["threshold"]) if jump else pre.relu()
    return z, (z @ w["W_dec"] + w["b_dec"]) / scale


@pytest.mark.parametrize(
    ("architecture", "norm"),
    [
        ("standard_saelens", "constant_norm_rescale"),
        ("standard_anthropic", "anthropic_rescale"),
        ("jumprelu", "constant_norm_rescale"),
    ],
)
def test_exports_of_the_first_mistudio_subtract_b_dec_whatever_they_say(
    tmp_path: Path, architecture: str, norm: str
) -> None:
    w, x = weights(), inputs()
    jump = architecture == "jumprelu"
    folder = tmp_path / "community_format/layer_2_residual"
    said = community(architecture, normalize_activations=norm)
    write_folder(folder, said, exported(w, "threshold") if jump else exported(w))
    found = only(tmp_path)
    same_everywhere(found, x, *original(w, x, jump=jump), tmp_path / "ours")
    assert (found.found.format, found.model, found.hook) == ("mistudio_original", "some/pico", "blocks.2.mlp.hook_in")
    assert (found.context, found.bos) == (None, None)
    said_of = " ".join(found.notes)
    assert "subtracts b_dec" in said_of and "what the MLP reads" in said_of
    assert ("anthropic_rescale scales each token" in said_of) == (norm == "anthropic_rescale")


def test_a_top_k_checkpoint_finds_its_k_in_its_export(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    at = tmp_path / "checkpoints/checkpoint_1000/layer_2_mlp"
    write_folder(at, None, native(w) | {"model.b_pre": w["b_dec"]}, weights="checkpoint.safetensors")
    with pytest.raises(ValueError, match=r"no cfg.json beside it or its export says k"):
        only(tmp_path)
    export = {name: one for name, one in exported(w).items() if name != "b_dec"}
    said = community("topk", extra_metadata={"top_k": 9}, normalize_activations="none")
    write_folder(tmp_path / "community_format/layer_2_mlp", said, export)
    checkpoint = next(one for one in find(FolderListing(tmp_path)) if one.path.startswith("checkpoints"))
    assert checkpoint.files[1] == "community_format/layer_2_mlp/cfg.json"
    (tmp_path / "community_format/layer_2_mlp/sae_weights.safetensors").unlink()
    found = only(tmp_path)
    z = only_largest((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 9)
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert found.hook == "blocks.2.hook_mlp_out" and "k is 9" in " ".join(found.notes)


def test_a_jumprelu_checkpoint_is_read_by_itself(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    write_folder(tmp_path / "layer_2_attention", None, native(w, jump=True), weights="checkpoint.safetensors")
    found = only(tmp_path)
    same_everywhere(found, x, *original(w, x, jump=True), tmp_path / "ours")
    assert found.hook == "blocks.2.hook_attn_out" and "is what it did by default" in " ".join(found.notes)


def test_a_transcoder_checkpoint_has_a_centre_of_its_own(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    centre = weights(3)["b_dec"]
    more = {"model.b_enc_center": centre, "model.decoder.bias": w["b_dec"]}
    write_folder(tmp_path, None, native(w) | more, weights="checkpoint.safetensors")
    z = ((x - centre) @ w["W_enc"] + w["b_enc"]).relu()
    found = only(tmp_path)
    torch.testing.assert_close(found.sae.encode(x), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.sae.decode(z, x), z @ w["W_dec"] + w["b_dec"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_its_first_versions_subtracted_nothing_and_had_two_biases(tmp_path: Path, tied: bool) -> None:
    w, x = weights(), inputs()
    more = {"model.decoder.bias": w["b_dec"], "model.decoder_bias": w["b_dec"] * 2}
    tensors = native(w) | (more if not tied else {"model.decoder_bias": w["b_dec"]})
    if tied:
        del tensors["model.decoder.weight"]
    write_folder(
        tmp_path, community("standard", normalize_activations="none"), tensors, weights="checkpoint.safetensors"
    )
    found = only(tmp_path)
    read = x - w["b_dec"] if tied else x
    z = (read @ w["W_enc"] + w["b_enc"]).relu()
    rebuilt = z @ w["W_enc"].t() + w["b_dec"] if tied else z @ w["W_dec"] + 3 * w["b_dec"]
    same_everywhere(found, x, z, rebuilt, tmp_path / "ours")


@pytest.mark.parametrize("converted", [True, False])
def test_the_zip_denies_a_norm_that_was_applied(tmp_path: Path, converted: bool) -> None:
    w, x = weights(), inputs()
    said = community("jumprelu", normalize_activations="none")
    del said["mistudio_training_id"]
    write_folder(tmp_path / "saelens", said, exported(w, "threshold") if converted else native(w, jump=True))
    (tmp_path / "metadata.json").write_text(json.dumps({"source": {"tool": "miStudio", "version": "1.0.0"}}))
    found = only(tmp_path)
    same_everywhere(found, x, *original(w, x, jump=True), tmp_path / "ours")
    assert "Its ZIP says that activations were not normalized" in " ".join(found.notes)


@pytest.mark.parametrize(("architecture", "says"), [("topk", "without its b_pre"), ("skip", "adds its input")])
def test_exports_that_lost_what_cannot_be_guessed_are_refused(tmp_path: Path, architecture: str, says: str) -> None:
    tensors = exported(weights())
    del tensors["b_dec"]
    write_folder(tmp_path, community(architecture), tensors)
    with pytest.raises(ValueError, match=says):
        only(tmp_path)
