"""Layouts of one maker each, written from their descriptions with known weights and held to their own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mistudiod.engine.formats import FolderListing, find
from tests.published import D, F, assert_same, imported, inputs, linear, topk, turned, vector

K = 5


def matrices(seed: int = 0) -> dict[str, Tensor]:
    """encoder.weight (F, d), encoder.bias, decoder.weight (d, F), decoder.bias; rows of no common norm."""
    return {**linear("encoder", F, D, seed), **linear("decoder", D, F, seed + 1)}


# OpenAI's GPT-2


def openai(folder: Path, name: str, activation: dict[str, object]) -> dict[str, Tensor]:
    m = matrices()
    state = {
        "pre_bias": vector(D, 3),
        "latent_bias": m["encoder.bias"],
        "stats_last_nonzero": torch.zeros(F, dtype=torch.long),
        "latents_activation_frequency": torch.ones(F),
        "encoder.weight": m["encoder.weight"],
        "decoder.weight": m["decoder.weight"],
    }
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save({**state, **activation}, folder / name)
    return state


def test_openai_with_relu(tmp_path: Path) -> None:
    w = openai(tmp_path / "repo", "gpt2-small/resid_delta_mlp/autoencoders/6.pt", {})
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert (one.found.format, one.found.layer, one.found.width, one.found.pickle) == ("openai_gpt2", 6, F, True)
    assert (one.hook, one.hook_out, one.model) == ("blocks.6.hook_mlp_out", "blocks.6.hook_mlp_out", "gpt2")
    x = inputs()
    z = torch.relu((x - w["pre_bias"]) @ w["encoder.weight"].t() + w["latent_bias"])
    assert_same(one, x, z, z @ w["decoder.weight"].t() + w["pre_bias"], tmp_path / "saved")


def test_openai_with_the_k_largest_of_normalised_tokens(tmp_path: Path) -> None:
    activation = {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    w = openai(tmp_path / "repo", "gpt2-small/resid_post_mlp_v5_32k/autoencoders/11.pt", activation)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert (one.hook, one.context, one.sae.norm) == ("blocks.11.hook_resid_post", 64, "layer_norm")
    x = inputs(30)
    mean = x.sum(1, keepdim=True) / D
    deviation = (((x - mean) ** 2).sum(1, keepdim=True) / (D - 1)).sqrt()  # as torch has it: unbiased
    z = topk(((x - mean) / (deviation + 1e-5) - w["pre_bias"]) @ w["encoder.weight"].t() + w["latent_bias"], K)
    rebuilt = (z @ w["decoder.weight"].t() + w["pre_bias"]) * deviation + mean
    torch.testing.assert_close(one.sae.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.sae.decode(z, x), rebuilt, rtol=1e-5, atol=1e-4)
    assert any("normalised" in note for note in one.notes)


@pytest.mark.parametrize(
    ("activation", "says"),
    [
        (
            {"activation": "TopK", "activation_state_dict": {"k": 5, "postact_fn": "Identity"}},
            "of negative latents too",
        ),
        ({"activation": "TopK", "activation_state_dict": {"k": 41, "postact_fn": "ReLU"}}, "k 41, more than its 40"),
        ({"activation": "TopK", "activation_state_dict": {}}, "which must be a whole number above 0"),
        ({"activation": "GELU"}, "only ReLU and TopK with ReLU are understood"),
        ({"latent_bias": torch.full((F,), float("nan"))}, "latent_bias that is not all finite"),
        ({"decoder.weight": torch.ones(D, F + 1)}, "decoder.weight of shape"),
        ({"encoder.weight": torch.ones(3)}, "a matrix is expected"),
    ],
)
def test_openai_of_a_kind_not_understood_or_damaged(tmp_path: Path, activation: dict[str, object], says: str) -> None:
    openai(tmp_path / "repo", "6.pt", activation)
    with pytest.raises(ValueError, match=says):
        imported(tmp_path / "repo", tmp_path / "scratch")


# Qwen Scope


def qwen(folder: Path) -> dict[str, Tensor]:
    m = matrices()
    state = {
        "W_enc": m["encoder.weight"],
        "W_dec": m["decoder.weight"],
        "b_enc": m["encoder.bias"],
        "b_dec": vector(D, 4),
    }
    folder.mkdir(parents=True)
    torch.save({name: one.bfloat16() for name, one in state.items()}, folder / "layer9.sae.pt")
    return {name: one.bfloat16().float() for name, one in state.items()}


def test_qwen_scope_takes_k_from_the_name_of_its_repo(tmp_path: Path) -> None:
    w = qwen(tmp_path / "SAE-Res-Qwen3-8B-Base-W64K-L0_5")
    one = imported(tmp_path / "SAE-Res-Qwen3-8B-Base-W64K-L0_5", tmp_path / "scratch")
    assert (one.found.format, one.found.layer, one.found.width, one.found.l0) == ("qwen_scope", 9, F, 5)
    assert (one.model, one.hook) == ("Qwen/Qwen3-8B-Base", "blocks.9.hook_resid_post")
    x = inputs()
    z = topk(x @ w["W_enc"].t() + w["b_enc"], 5)
    assert_same(one, x, z, z @ w["W_dec"].t() + w["b_dec"])


def test_qwen_scope_in_a_folder_of_another_name_says_what_is_missing(tmp_path: Path) -> None:
    qwen(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"only in its repo's name, and .*mine is none: rename the folder"):
        imported(tmp_path / "mine", tmp_path / "scratch")


# Goodfire, qresearch


@pytest.mark.parametrize(
    ("name", "parts", "model"),
    [
        ("Llama-3.1-8B-Instruct-SAE-l19.pth", ("encoder_linear", "decoder_linear"), "meta-llama/Llama-3.1-8B-Instruct"),
        ("DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", ("encoder", "decoder"), "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    ],
)
def test_two_linear_maps_in_a_pickle(tmp_path: Path, name: str, parts: tuple[str, str], model: str) -> None:
    w = {**linear(parts[0], F, D, 0), **linear(parts[1], D, F, 1)}
    (tmp_path / "repo").mkdir()
    torch.save(w, tmp_path / "repo" / name)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert (one.found.format, one.found.path, one.found.width, one.model) == ("linear_pickle", name, F, model)
    assert (one.hook, one.sae.centred) == ("blocks.19.hook_resid_post", False)
    x = inputs()
    z = torch.relu(x @ w[f"{parts[0]}.weight"].t() + w[f"{parts[0]}.bias"])
    assert_same(one, x, z, z @ w[f"{parts[1]}.weight"].t() + w[f"{parts[1]}.bias"], tmp_path / "saved")


def test_a_pickle_of_something_else_is_no_sae(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "repo" / "model.pt")
    with pytest.raises(ValueError, match="holds no SAE of a known layout"):
        find(FolderListing(tmp_path / "repo"))


# mwhanna's transcoders


def mwhanna(folder: Path, config: str | None) -> dict[str, Tensor]:
    m = matrices()
    state = {"W_enc": m["encoder.weight"], "W_dec": turned(m)["decoder.weight"], "b_enc": m["encoder.bias"]}
    state["b_dec"] = vector(D, 4)
    folder.mkdir(parents=True)
    save_file(state, folder / "layer_7.safetensors")
    if config:
        (folder / "config.yaml").write_text(config)
    return state


def test_mwhanna_transcoders(tmp_path: Path) -> None:
    config = 'model_name: "Qwen/Qwen3-4B"\nmodel_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nscan: [a, b]\n'
    w = mwhanna(tmp_path / "repo", config)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert (one.found.format, one.found.layer, one.found.width, one.found.pickle) == (
        "mwhanna_transcoders",
        7,
        F,
        False,
    )
    assert (one.hook, one.hook_out, one.model) == ("blocks.7.mlp.hook_in", "blocks.7.hook_mlp_out", "Qwen/Qwen3-4B")
    x = inputs()
    z = torch.relu(x @ w["W_enc"].t() + w["b_enc"])
    assert one.sae.transcodes
    assert_same(one, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "saved")


def test_mwhanna_transcoders_without_a_config_are_named_by_their_repo(tmp_path: Path) -> None:
    mwhanna(tmp_path / "qwen3-14b-transcoders-lowl0", None)
    one = imported(tmp_path / "qwen3-14b-transcoders-lowl0", tmp_path / "scratch")
    assert one.model == "Qwen/Qwen3-14B"


def test_a_cross_layer_transcoder_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"W_enc_0": torch.ones(F, D)}, tmp_path / "W_enc_0.safetensors")
    save_file({"W_dec_0": torch.ones(F, 3, D)}, tmp_path / "W_dec_0.safetensors")
    with pytest.raises(ValueError, match="is a cross-layer transcoder"):
        find(FolderListing(tmp_path))


# Llama Scope

HYPERPARAMS: dict[str, Any] = {
    "d_model": D,
    "d_sae": F,
    "act_fn": "jumprelu",
    "jump_relu_threshold": 2.0,
    "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": 20.0, "out": 20.0},
    "sparsity_include_decoder_norm": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "use_decoder_bias": True,
    "top_k": K,
    "hook_point_in": "blocks.8.hook_resid_post",
    "hook_point_out": "blocks.8.hook_resid_post",
}


def llama(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    w = matrices()
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(config))
    save_file({name: one.bfloat16() for name, one in w.items()}, folder / "checkpoints/final.safetensors")
    return {name: one.bfloat16().float() for name, one in w.items()}


def by_their_rule(
    w: dict[str, Tensor], x: Tensor, config: dict[str, Any], threshold: Tensor | float | None
) -> tuple[Tensor, Tensor]:
    """Language-Model-SAEs: encode as trained, gate, decode, denormalise. ``threshold`` as trained."""
    norms = config["dataset_average_activation_norm"]
    into, out = (D**0.5 / norms[side] for side in ("in", "out"))
    scaled = x * into
    if config["apply_decoder_bias_to_pre_encoder"]:
        scaled = scaled - w["decoder.bias"]
    pre = scaled @ w["encoder.weight"].t() + w["encoder.bias"]
    norm = w["decoder.weight"].norm(dim=0) if config["sparsity_include_decoder_norm"] else torch.ones(F)
    gate = topk(pre * norm, K) > 0 if threshold is None else (pre * norm > threshold) & (pre > 0)
    z = pre * gate
    return z * norm, (z @ w["decoder.weight"].t() + w["decoder.bias"]) / out


def by_their_inference_mode(w: dict[str, Tensor], x: Tensor, config: dict[str, Any]) -> Tensor:
    """What Language-Model-SAEs does of a published checkpoint: dataset norms folded, rows of unit norm, then gated."""
    norms = config["dataset_average_activation_norm"]
    into, out = (D**0.5 / norms[side] for side in ("in", "out"))
    b_enc, b_dec = w["encoder.bias"] / into, w["decoder.bias"] / out
    w_dec, w_enc = w["decoder.weight"] * into / out, w["encoder.weight"]
    if config["sparsity_include_decoder_norm"]:
        norm = w_dec.norm(dim=0)
        w_dec, w_enc, b_enc = w_dec / norm, w_enc * norm[:, None], b_enc * norm
    pre = x @ w_enc.t() + b_enc
    return (pre * (pre > config["jump_relu_threshold"])) @ w_dec.t() + b_dec


@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("out", [20.0, 3.0])
def test_llama_scope_with_one_threshold(tmp_path: Path, by_norm: bool, out: float) -> None:
    norms = {"in": 20.0, "out": out}
    config = {**HYPERPARAMS, "dataset_average_activation_norm": norms, "sparsity_include_decoder_norm": by_norm}
    if out != norms["in"]:
        config["hook_point_out"] = "blocks.8.hook_mlp_out"
    name = "Llama3_1-8B-Base-L8R-8x"
    w = llama(tmp_path / "repo" / name, config)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert (one.found.format, one.found.path, one.found.layer, one.found.width) == ("llama_scope", name, 8, F)
    assert (one.model, one.context, one.bos) == ("meta-llama/Llama-3.1-8B", 1024, True)
    assert (one.hook_out, one.sae.transcodes) == (config["hook_point_out"], out != 20)
    x = inputs(10)
    raw = D**0.5 / (out if by_norm else 20.0)
    z, rebuilt = by_their_rule(w, x, config, 2.0 * raw)
    torch.testing.assert_close(rebuilt, by_their_inference_mode(w, x, config), rtol=1e-4, atol=1e-4)
    assert 0 < (z > 0).float().mean() < 0.5
    assert_same(one, x, z, rebuilt, tmp_path / "saved")


def test_llama_scope_with_b_dec_subtracted_and_the_k_largest(tmp_path: Path) -> None:
    config = {**HYPERPARAMS, "act_fn": "topk", "jump_relu_threshold": 0, "apply_decoder_bias_to_pre_encoder": True}
    w = llama(tmp_path / "repo", config)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    x = inputs(10)
    assert_same(one, x, *by_their_rule(w, x, config, None))
    assert any("folded into b_enc" in note for note in one.notes)


def test_of_a_llama_scope_of_the_k_largest_with_a_threshold_the_threshold_holds_as_its_makers_load_it(
    tmp_path: Path,
) -> None:
    config = {**HYPERPARAMS, "act_fn": "topk"}
    w = llama(tmp_path / "repo", config)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    raw = D**0.5 / 20
    assert_same(one, inputs(10), *by_their_rule(w, inputs(10), config, 2.0 * raw), tmp_path / "saved")
    assert any("use its threshold instead" in note for note in one.notes)


@pytest.mark.parametrize("plain", [False, True])
def test_the_r1_sibling_has_thresholds_and_norms_among_its_tensors(tmp_path: Path, plain: bool) -> None:
    folder = tmp_path / "Llama-Scope-R1-Distill" / "0-Slimpajama-800M-OpenR1-Math-220k" / "L15R"
    folder.mkdir(parents=True)
    hook = "blocks.15.hook_resid_post"
    config = {name: HYPERPARAMS[name] for name in ("d_model", "act_fn", "norm_activation")}
    config |= {"hook_point_in": hook, "hook_point_out": hook, "expansion_factor": F / D, "sae_type": "sae"}
    w, log = matrices(), torch.linspace(-2, 0, F)
    stored = dict(w)
    if plain:
        renamed = zip(("W_E", "b_E", "W_D", "b_D"), w, strict=True)
        stored = {new: turned(w)[old] for new, old in renamed}
    stored[f"{'activation_function.' if plain else ''}log_jumprelu_threshold"] = log
    save_file(
        {**stored, f"dataset_average_activation_norm.{hook}": torch.tensor(9.0)}, folder / "sae_weights.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    one = imported(tmp_path / "Llama-Scope-R1-Distill", tmp_path / "scratch")
    assert (one.found.layer, one.found.width, one.hook) == (15, F, hook)
    assert one.model == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    theirs = {**HYPERPARAMS, "dataset_average_activation_norm": {"in": 9.0, "out": 9.0}}
    x = inputs(3)
    assert_same(one, x, *by_their_rule(w, x, theirs, log.exp()), tmp_path / "saved")


def test_llama_scope_normalised_token_by_token(tmp_path: Path) -> None:
    config = {**HYPERPARAMS, "norm_activation": "token-wise", "act_fn": "relu", "sparsity_include_decoder_norm": False}
    w = llama(tmp_path / "repo", config)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    x = inputs(10)
    factor = D**0.5 / x.norm(dim=1, keepdim=True)
    z = torch.relu(x * factor @ w["encoder.weight"].t() + w["encoder.bias"])
    torch.testing.assert_close(one.sae.encode(x), z, rtol=1e-5, atol=1e-5)
    rebuilt = (z @ w["decoder.weight"].t() + w["decoder.bias"]) / factor
    torch.testing.assert_close(one.sae.decode(z, x), rebuilt, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"act_fn": "tanh"}, "act_fn 'tanh', and only relu, jumprelu and topk"),
        ({"act_fn": "topk", "jump_relu_threshold": None, "top_k": 41}, "top_k 41, more than its 40"),
        ({"norm_activation": "batch-wise"}, "'batch-wise', which cannot be undone"),
        ({"norm_activation": "token-wise", "hook_point_out": "blocks.8.hook_mlp_out"}, "cannot be undone"),
        ({"dataset_average_activation_norm": {"in": 0, "out": 1}}, "do not say the dataset_average_activation_norm"),
        ({"dataset_average_activation_norm": None}, "do not say the dataset_average_activation_norm"),
        ({"jump_relu_threshold": None}, "neither a jump_relu_threshold nor"),
        ({"use_glu_encoder": True}, "a GLU encoder"),
        ({"sae_type": "crosscoder"}, "'crosscoder', and only sae"),
        ({"d_model": 17}, "encoder.weight of shape"),
        ({"d_model": "many"}, "d_model"),
    ],
)
def test_llama_scope_of_a_kind_not_understood(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    llama(tmp_path / "repo", {**HYPERPARAMS, **changes})
    with pytest.raises(ValueError, match=says):
        imported(tmp_path / "repo", tmp_path / "scratch")


def test_a_folder_of_very_many_is_looked_into_for_some_and_listed_whole(tmp_path: Path) -> None:
    w = {name: one.bfloat16() for name, one in matrices().items()}
    for layer in range(70):
        folder = tmp_path / f"Llama3_1-8B-Base-L{layer}R-8x"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "hyperparams.json").write_text(
            json.dumps({**HYPERPARAMS, "hook_point_in": f"blocks.{layer}.hook_resid_post"})
        )
        save_file(w, folder / "checkpoints/final.safetensors")
    assert [one.layer for one in find(FolderListing(tmp_path))] == list(range(70))
