"""The canonical form: its rule, its folder, and what it refuses to load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mistudiod.engine.encode import Encoder
from mistudiod.engine.rules import GatedRule, JumpReLURule, ReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder

METADATA: dict[str, object] = {
    "model_name": "pico",
    "hook_name": "blocks.1.hook_resid_post",
    "prepend_bos": True,
    "context_size": 128,
    "exclude_special_tokens": True,
}


def random_sae(d_in: int = 12, d_sae: int = 60, k: int = 5) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    return SparseAutoencoder(
        W_enc=torch.randn(d_in, d_sae, generator=generator),
        b_enc=torch.randn(d_sae, generator=generator),
        W_dec=torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator)),
        b_dec=torch.randn(d_in, generator=generator),
        rule=TopKRule(k),
        metadata={"recipe": "by hand"},
    )


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(30, 12, generator=torch.Generator().manual_seed(1))


def test_encoding_keeps_the_k_largest_pre_activations_that_are_positive(x: torch.Tensor) -> None:
    sae = random_sae(k=40)
    sae.b_enc -= 2
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    kept = pre >= pre.topk(40, dim=1).values[:, -1:]
    torch.testing.assert_close(sae.encode(x), pre.where(kept, 0.0).relu(), rtol=1e-5, atol=1e-5)


def test_sparse_and_dense_forms_agree(x: torch.Tensor) -> None:
    sae = random_sae()
    values, indices = sae.encode_active(x)
    z = sae.encode(x)
    assert values.shape == indices.shape == (30, 5) and z.shape == (30, 60)
    assert torch.equal(z.gather(1, indices), values) and z.sum() == pytest.approx(values.sum().item())
    torch.testing.assert_close(sae.decode_active(values, indices), sae.decode(z), rtol=1e-5, atol=1e-5)


def test_a_saved_sae_loads_bit_equal(tmp_path: Path) -> None:
    sae = random_sae()
    sae.save(tmp_path / "sae", METADATA)
    loaded = SparseAutoencoder.load(tmp_path / "sae")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(loaded, name), getattr(sae, name))
    assert (loaded.d_in, loaded.d_sae, loaded.rule) == (12, 60, TopKRule(5))
    assert loaded.metadata == {"recipe": "by hand", **METADATA, "sae_lens_version": "6.54.12"}


def test_the_folder_has_the_layout_of_saelens(tmp_path: Path) -> None:
    share = torch.linspace(0, 1, 60)
    random_sae().save(tmp_path, METADATA, sparsity=share)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
        "sparsity.safetensors",
    ]
    assert json.loads((tmp_path / "cfg.json").read_text()) == {
        "architecture": "topk",
        "d_in": 12,
        "d_sae": 60,
        "k": 5,
        "rescale_acts_by_decoder_norm": False,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"recipe": "by hand", **METADATA, "sae_lens_version": "6.54.12"},
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (12, 60), "b_enc": (60,), "W_dec": (60, 12), "b_dec": (12,)}
    stored = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    torch.testing.assert_close(stored, torch.log10(share + 1e-10))
    assert stored[0].item() == pytest.approx(-10)


def test_without_firing_shares_there_is_no_sparsity_file(tmp_path: Path) -> None:
    random_sae().save(tmp_path)
    assert not (tmp_path / "sparsity.safetensors").exists()


def test_saving_moves_the_norm_of_decoder_rows_into_the_latents(tmp_path: Path, x: torch.Tensor) -> None:
    sae = random_sae(k=60)  # all latents are chosen, so folding may not change the reconstruction at all
    sae.W_dec *= torch.linspace(0.5, 3, 60)[:, None]
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    torch.testing.assert_close(torch.linalg.vector_norm(loaded.W_dec, dim=1), torch.ones(60))
    torch.testing.assert_close(loaded.decode(loaded.encode(x)), sae.decode(sae.encode(x)), rtol=1e-4, atol=1e-4)


def test_a_common_norm_of_decoder_rows_leaves_the_choice_of_latents(tmp_path: Path, x: torch.Tensor) -> None:
    sae = random_sae()
    sae.W_dec *= 2.5
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    torch.testing.assert_close(loaded.encode(x), 2.5 * sae.encode(x), rtol=1e-4, atol=1e-4)


def test_a_zero_decoder_row_is_saved_without_nan(tmp_path: Path) -> None:
    sae = random_sae()
    sae.W_dec[3] = 0
    sae.save(tmp_path)
    assert torch.equal(SparseAutoencoder.load(tmp_path).W_dec, sae.W_dec)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_latents_that_were_chosen_by_contribution_still_are(tmp_path: Path, x: torch.Tensor) -> None:
    sae = random_sae()
    norm = torch.linspace(0.5, 3, 60)
    sae.save(tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights.update(W_enc=weights["W_enc"] / norm, b_enc=weights["b_enc"] / norm, W_dec=weights["W_dec"] * norm[:, None])
    save_file(weights, tmp_path / "sae_weights.safetensors")
    edit_config(tmp_path, rescale_acts_by_decoder_norm=True)
    torch.testing.assert_close(SparseAutoencoder.load(tmp_path).encode(x), sae.encode(x), rtol=1e-4, atol=1e-4)


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    random_sae().save(tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, tmp_path / "sae_weights.safetensors")
    loaded = SparseAutoencoder.load(tmp_path)
    assert loaded.W_enc.dtype == torch.float32
    torch.testing.assert_close(loaded.W_enc, weights["W_enc"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "crosscoder"}, 'architecture "crosscoder", and only topk, standard, jumprelu'),
        ({"architecture": "gated"}, "a gated SAE has W_dec, W_enc, b_dec, b_gate, b_mag, r_mag"),
        ({"architecture": None}, "architecture null"),
        ({"normalize_activations": "running"}, 'normalize_activations "running", and only "none" or "layer_norm"'),
        ({"reshape_activations": "hook_z"}, 'reshape_activations "hook_z", and only "none" is understood'),
        ({"d_in": "12"}, 'd_in "12", which must be a whole number'),
        ({"k": None}, "k null"),
        ({"k": True}, "k true"),
        ({"k": 61}, "k 61, more than its d_sae 60"),
        ({"d_in": 13}, r"W_enc of shape \(12, 60\), and \(13, 60\) is expected"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    random_sae().save(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(ValueError, match=says):
        SparseAutoencoder.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "weight", "says"),
    [
        ("W_dec", torch.zeros(12, 60), r"W_dec of shape \(12, 60\), and \(60, 12\) is expected"),
        ("b_enc", torch.full((60,), float("nan")), "b_enc that is not all finite"),
        ("b_dec", torch.full((12,), float("inf")), "b_dec that is not all finite"),
        ("b_dec", torch.zeros(12, dtype=torch.int32), "b_dec that is not all finite floating-point numbers"),
        ("threshold", torch.zeros(60), "W_dec, W_enc, b_dec, b_enc, threshold; a topk SAE has"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, name: str, weight: torch.Tensor, says: str) -> None:
    random_sae().save(tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    save_file({**load_file(path), name: weight}, path)
    with pytest.raises(ValueError, match=says):
        SparseAutoencoder.load(tmp_path)


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, file: str) -> None:
    random_sae().save(tmp_path)
    (tmp_path / file).write_bytes(b"\x80damaged")
    with pytest.raises(ValueError, match=f"{file} (cannot be read|is damaged)"):
        SparseAutoencoder.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"is not an SAE: it has no {file}"):
        SparseAutoencoder.load(tmp_path)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_an_sae_with_a_norm_scales_every_token_and_scales_it_back(tmp_path: Path, x: torch.Tensor, norm: str) -> None:
    plain = random_sae(k=60)
    replace(plain, norm=norm).save(tmp_path)
    sae = SparseAutoencoder.load(tmp_path)
    assert (sae.norm, json.loads((tmp_path / "cfg.json").read_text())["normalize_activations"]) == (norm, norm)
    if norm == "layer_norm":
        mean, by = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        read = (x - mean) / (by + 1e-5)
    else:
        mean, by = 0, x.norm(dim=1, keepdim=True) / 12**0.5
        read = x / by
    z = plain.encode(read)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae.decode(z, x), plain.decode(z) * by + mean)
    torch.testing.assert_close(sae.decode_active(*sae.encode_active(x), x), plain.decode(z) * by + mean)
    blocks = list(Encoder(sae).blocks(x))
    assert sum(float(block.values.sum()) for block in blocks) == pytest.approx(z.sum().item(), rel=1e-5)
    with pytest.raises(ValueError, match="normalizes its input: give x"):
        sae.decode(z)


def test_a_file_that_does_not_subtract_b_dec_is_used_as_it_says(tmp_path: Path, x: torch.Tensor) -> None:
    sae = random_sae()
    sae.save(tmp_path)
    edit_config(tmp_path, apply_b_dec_to_input=False)
    loaded = SparseAutoencoder.load(tmp_path)
    loaded.b_enc = sae.b_enc - sae.b_dec @ sae.W_enc  # what makes up for it
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["standard", "jumprelu", "gated"])
def test_any_number_of_latents_may_be_active(rule: str, x: torch.Tensor, tmp_path: Path) -> None:
    sae = random_sae()
    numbers = torch.rand(3, 60, generator=torch.Generator().manual_seed(2))
    sae.rule = {
        "standard": ReLURule(),
        "jumprelu": JumpReLURule(numbers[0]),
        "gated": GatedRule(sae.b_enc, numbers[1], numbers[2]),
    }[rule]
    sae.b_enc -= torch.arange(60) / 10
    if rule == "gated":
        sae.rule = GatedRule(sae.b_enc, numbers[1], numbers[2])
    sae.W_dec *= 3 * numbers[:1].t() + 0.5  # their norm goes into the latents on saving
    values, latents = sae.encode_active(x)
    dense = torch.zeros(30, 60).scatter_add_(1, latents, values)
    torch.testing.assert_close(dense, sae.encode(x))
    assert 0 < values.shape[1] < 60 and (values > 0).sum(1).unique().numel() > 3
    torch.testing.assert_close(sae.decode_active(values, latents), sae.decode(dense), rtol=1e-4, atol=1e-4)
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    torch.testing.assert_close(loaded.decode(loaded.encode(x)), sae.decode(dense), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.linalg.vector_norm(loaded.W_dec, dim=1), torch.ones(60))
    nothing = sae.encode_active(x[:0])
    assert nothing[0].shape == nothing[1].shape == (0, 1)


def test_a_gated_transcoder_has_no_form(tmp_path: Path) -> None:
    sae = random_sae()
    sae.transcodes, sae.centred, sae.rule = True, False, GatedRule(sae.b_enc, sae.b_enc, sae.b_enc)
    with pytest.raises(ValueError, match="no form for a gated transcoder"):
        sae.save(tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_that_takes_the_k_largest_is_saved_under_a_name_of_ours(
    tmp_path: Path, x: torch.Tensor, skip: bool
) -> None:
    sae = random_sae()
    sae.transcodes, sae.centred = True, False
    sae.W_skip = torch.eye(12) if skip else None
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    assert (loaded.rule, loaded.transcodes, loaded.centred) == (TopKRule(5), True, False)
    assert torch.equal(loaded.decode(loaded.encode(x), x), sae.decode(sae.encode(x), x))


def test_rows_that_differ_in_norm_do_not_change_which_latents_are_the_largest(tmp_path: Path, x: torch.Tensor) -> None:
    sae = random_sae()
    sae.W_dec *= torch.linspace(0.5, 3, 60)[:, None]
    sae.save(tmp_path)
    loaded = SparseAutoencoder.load(tmp_path)
    assert torch.equal(loaded.encode(x), sae.encode(x)) and torch.equal(loaded.W_dec, sae.W_dec)


def test_a_skip_needs_the_input_again(x: torch.Tensor) -> None:
    sae = random_sae()
    sae.W_skip = torch.eye(12)
    z = sae.encode(x)
    torch.testing.assert_close(sae.decode(z, x), z @ sae.W_dec + sae.b_dec + x, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="give x as well"):
        sae.decode(z)
