"""SAEs that read what the MLP's norm gives before its own weight: brought in, they fire as on that value by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import Hub, served_hub  # noqa: F401
from repos_of_saes import F, add, gemma_latents, gemma_scope, hf_home, refused, weights  # noqa: F401
from run_job import run_job
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from torch import Tensor

from mistudiod.engine.lm import load_lm
from mistudiod.engine.sae import SparseAutoencoder

NORMS = {"gemma2": "pre_feedforward_layernorm", "llama": "post_attention_layernorm"}
IDS = torch.randint(1, 300, (1, 40), generator=torch.Generator().manual_seed(1))
SCOPE = "gemma-scope-2b-pt-transcoders/layer_1/width_16k/average_l0_9"


def studio(folder: Path, family: str) -> Path:
    tiny_model(family, folder / "tiny")
    run_job(folder / "data", "add_model", source=str(folder / "tiny"), name="m")
    return folder / "data"


def before_the_weight(folder: Path, family: str) -> Tensor:
    """(tokens, D): what goes into the norm of block 1 over its root mean square, TransformerLens' hook_normalized."""
    lm, into = load_lm(folder / "tiny"), []
    module = getattr(lm.model.model.layers[1], NORMS[family])
    handle = module.register_forward_pre_hook(lambda _module, given: into.append(given[0].detach()))
    with torch.no_grad():
        lm.model(IDS)
    handle.remove()
    x = into[0][0].double()
    return (x / (x.square().mean(-1, keepdim=True) + lm.model.config.rms_norm_eps).sqrt()).float()


def read(folder: Path) -> tuple[SparseAutoencoder, Tensor]:
    """What was brought in, and what its hook gives."""
    x = load_lm(folder / "tiny").activations(IDS, "blocks.1.mlp.hook_in")[0].float()
    return SparseAutoencoder.load(folder / "data/saes/s"), x


def close(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-3 * reference.abs().max().item())


@pytest.mark.parametrize("family", NORMS)
def test_gemma_scopes_transcoders_read_the_norm_without_its_weight(tmp_path: Path, family: str) -> None:
    data = studio(tmp_path, family)
    recipe = add(data, gemma_scope(tmp_path / SCOPE), model="m")
    assert (recipe["hook"], recipe["hook_out"]) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert "that weight of m was folded in" in " ".join(recipe["imported"]["notes"])
    sae, x = read(tmp_path)
    z = gemma_latents(before_the_weight(tmp_path, family))
    assert (z > 0).any(1).all()
    close(sae.encode(x), z)
    close(sae.decode(sae.encode(x), x), z @ weights()["W_dec"] + weights()["b_dec"])


def test_a_hook_that_is_named_is_the_same_place(tmp_path: Path) -> None:
    data = studio(tmp_path, "gemma2")
    folder = gemma_scope(tmp_path / SCOPE)
    for name, hook in (("s", "blocks.1.mlp.hook_in"), ("t", "blocks.1.ln2.hook_normalized")):
        assert add(data, folder, name, model="m", hook=hook)["hook"] == "blocks.1.mlp.hook_in"
    one, other = (SparseAutoencoder.load(data / "saes" / name) for name in "st")
    assert torch.equal(one.W_enc, other.W_enc)
    close(one.encode(read(tmp_path)[1]), gemma_latents(before_the_weight(tmp_path, "gemma2")))


def test_llama_scopes_transcoders_do_so_too(tmp_path: Path) -> None:
    data, d = studio(tmp_path, "llama"), 32
    w = weights()
    config = {"d_model": d, "act_fn": "jumprelu", "jump_relu_threshold": 0.3, "norm_activation": "dataset-wise"}
    config |= {"dataset_average_activation_norm": {"in": d**0.5, "out": 2 * d**0.5}, "d_sae": F}
    config |= {"hook_point_in": "blocks.1.ln2.hook_normalized", "hook_point_out": "blocks.1.hook_mlp_out"}
    folder = tmp_path / "Llama3_1-8B-Base-L1TC-8x"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(config))
    state = {"encoder.weight": w["W_enc"].t(), "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].t()}
    state = {name: one.contiguous() for name, one in state.items()} | {"decoder.bias": w["b_dec"]}
    save_file(state, folder / "checkpoints/final.safetensors")
    recipe = add(data, folder, model="m")
    assert recipe["hook"] == "blocks.1.mlp.hook_in" and recipe["imported"]["bos"] is True
    sae, x = read(tmp_path)
    pre = before_the_weight(tmp_path, "llama") @ w["W_enc"] + w["b_enc"]
    z = 2 * pre * (2 * pre > 0.3)  # the rows are of unit norm and twice as long for what the model has
    close(sae.encode(x), z)
    close(sae.decode(sae.encode(x), x), z @ w["W_dec"] + 2 * w["b_dec"])


def test_an_sae_of_that_place_rebuilds_what_the_mlp_reads(tmp_path: Path) -> None:
    data, w = studio(tmp_path, "gemma2"), weights()
    config = {"architecture": "standard", "d_in": 32, "d_sae": F, "apply_b_dec_to_input": True}
    config["metadata"] = {"sae_lens_version": "6.0", "hook_name": "blocks.1.ln2.hook_normalized"}
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae/cfg.json").write_text(json.dumps(config))
    save_file(
        {name: w[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")}, tmp_path / "sae/sae_weights.safetensors"
    )
    add(data, tmp_path / "sae", model="m")
    sae, x = read(tmp_path)
    n = before_the_weight(tmp_path, "gemma2")
    z = ((n - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    gain = 1 + load_file(tmp_path / "tiny/model.safetensors")["model.layers.1.pre_feedforward_layernorm.weight"].float()
    close(sae.decode(sae.encode(x), x), (z @ w["W_dec"] + w["b_dec"]) * gain)


def test_a_norm_that_wipes_numbers_out_has_no_inverse(tmp_path: Path) -> None:
    data = studio(tmp_path, "gemma2")
    state = load_file(tmp_path / "tiny/model.safetensors")
    state["model.layers.1.pre_feedforward_layernorm.weight"][3] = -1
    save_file(state, tmp_path / "tiny/model.safetensors", {"format": "pt"})
    said = refused(data, gemma_scope(tmp_path / SCOPE), "model", model="m")
    assert said == "the norm in front of the MLP of block 1 of m wipes numbers out that it reads"


def test_a_layer_norm_is_said_to_be_what_its_makers_made_of_it(tmp_path: Path) -> None:
    data = studio(tmp_path, "gpt2")
    recipe = add(data, gemma_scope(tmp_path / SCOPE), model="m")
    assert "unless its makers folded the norm's weight" in " ".join(recipe["imported"]["notes"])
    assert np.allclose(SparseAutoencoder.load(data / "saes/s").W_enc, weights()["W_enc"])
