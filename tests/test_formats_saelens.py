"""SAELens folders of every age: what is read computes what SAELens' own formulas say, and SAELens agrees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from formats import D, F, close, inputs, only, only_largest, same_everywhere, saved, weights, write_folder
from saelens import ask_saelens, needs_saelens
from safetensors.torch import save_file
from torch import Tensor

METADATA: dict[str, object] = {
    "sae_lens_version": "6.20.0",
    "model_name": "pico",
    "hook_name": "blocks.1.hook_resid_post",
    "prepend_bos": False,
    "context_size": 64,
    "l0": 11.5,
}


def config(architecture: str, **more: object) -> dict[str, object]:
    found: dict[str, object] = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "device": "cpu",
    }
    found |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    return found | more | {"metadata": METADATA}


def some(names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights().items() if name in names.split()}


PLAIN = "W_enc W_dec b_enc b_dec"


def test_a_folder_of_version_6_says_what_it_belongs_to(tmp_path: Path) -> None:
    write_folder(tmp_path, config("standard"), some(PLAIN))
    found = only(tmp_path)
    assert (found.hook, found.hook_out, found.model) == ("blocks.1.hook_resid_post",) * 2 + ("pico",)
    assert (found.context, found.bos, found.declared, found.notes) == (64, False, {"l0": 11.5}, [])
    assert (found.found.format, found.found.layer, found.found.l0) == ("saelens", 1, 11.5)
    assert found.sae.metadata == METADATA


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_every_architecture_computes_its_own_formula(tmp_path: Path, architecture: str, centred: bool) -> None:
    w, x = weights(), inputs()
    read = x - w["b_dec"] if centred else x
    pre = read @ w["W_enc"] + w["b_enc"]
    tensors, more = some(PLAIN), {}
    if architecture == "standard":
        z = pre.relu()
    elif architecture == "topk":
        z, more = only_largest(pre, 7), {"k": 7, "rescale_acts_by_decoder_norm": False}
    elif architecture == "jumprelu":
        z, tensors = pre.relu() * (pre > w["threshold"]), some(f"{PLAIN} threshold")
    else:
        r, b_mag = weights(1)["b_enc"] / 3, weights(2)["b_enc"]
        tensors = some("W_enc W_dec b_dec") | {"b_gate": w["b_enc"], "b_mag": b_mag, "r_mag": r}
        z = (read @ (w["W_enc"] * r.exp()) + b_mag).relu() * (pre > 0)
    write_folder(tmp_path / "sae", config(architecture, apply_b_dec_to_input=centred, **more), tensors)
    same_everywhere(only(tmp_path / "sae"), x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")


def test_latents_chosen_by_their_contribution_still_are(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    norm = w["W_dec"].norm(dim=1)
    z = only_largest(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norm, 7)
    write_folder(tmp_path / "sae", config("topk", k=7, rescale_acts_by_decoder_norm=True), some(PLAIN))
    same_everywhere(only(tmp_path / "sae"), x, z, (z / norm) @ w["W_dec"] + w["b_dec"], tmp_path / "ours")


def test_a_threshold_is_held_to_latents_as_they_are_whatever_else_the_config_says(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    z = pre.relu() * (pre > w["threshold"])
    said = config("jumprelu", rescale_acts_by_decoder_norm=True)
    write_folder(tmp_path / "sae", said, some(f"{PLAIN} threshold"))
    same_everywhere(only(tmp_path / "sae"), x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("k", [None, 7])
def test_a_norm_of_each_token_is_kept(tmp_path: Path, norm: str, k: int | None) -> None:
    w, x = weights(), inputs()
    if norm == "layer_norm":
        mean, scale = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        read = (x - mean) / (scale + 1e-5)
    else:
        mean, scale = torch.zeros(1), x.norm(dim=1, keepdim=True) / D**0.5
        read = x / scale
    pre = (read - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    z = only_largest(pre, k) if k else pre.relu()
    more = {"k": k} if k else {}
    write_folder(tmp_path / "sae", config("topk" if k else "standard", normalize_activations=norm, **more), some(PLAIN))
    same_everywhere(only(tmp_path / "sae"), x, z, (z @ w["W_dec"] + w["b_dec"]) * scale + mean, tmp_path / "ours")


@pytest.mark.parametrize("said", ["expected_average_only_in", True])
def test_a_scale_of_all_activations_is_folded_when_it_is_known(tmp_path: Path, said: object) -> None:
    w, x = weights(), inputs()
    old = config("jumprelu", normalize_activations=said)
    write_folder(tmp_path / "sae", old, some(f"{PLAIN} threshold"))
    (note,) = only(tmp_path / "sae").notes
    assert "one number that is not in the files" in note
    (tmp_path / "sae/activation_scaler.json").write_text('{"scaling_factor": 0.25, "has_whitening": false}')
    found = only(tmp_path / "sae")
    assert found.notes == ["Activations were scaled by 0.25 in training; that was folded into the weights."]
    pre = (x * 0.25 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    z = pre.relu() * (pre > w["threshold"])
    same_everywhere(found, x, z, (z @ w["W_dec"] + w["b_dec"]) / 0.25, tmp_path / "ours")


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "gated"])
def test_whitening_is_folded(tmp_path: Path, architecture: str, centred: bool) -> None:
    w, x = weights(), inputs()
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(D, D, generator=generator, dtype=torch.float64) / 4 + torch.eye(D)
    mean, inverse = torch.randn(D, generator=generator, dtype=torch.float64), matrix.inverse().contiguous()
    said = config(architecture, normalize_activations="covariance_whitening", apply_b_dec_to_input=centred)
    r = torch.zeros(F)
    gated = {"b_gate": w["b_enc"], "b_mag": w["b_enc"] + 1, "r_mag": r + 0.5}
    write_folder(tmp_path / "sae", said, some("W_enc W_dec b_dec") | gated if architecture == "gated" else some(PLAIN))
    with pytest.raises(ValueError, match=r"there is no activation_whitening.safetensors to undo it"):
        only(tmp_path / "sae")
    both = {"mean": mean, "matrix": matrix, "inverse_matrix": inverse}
    save_file(both, tmp_path / "sae/activation_whitening.safetensors")
    read = ((x.double() - mean) @ matrix).float() - (w["b_dec"] if centred else 0)
    pre = read @ w["W_enc"] + w["b_enc"]
    z = pre.relu()
    if architecture == "gated":
        z = (read @ w["W_enc"] * gated["r_mag"].exp() + gated["b_mag"]).relu() * (pre > 0)
    rebuilt = ((z @ w["W_dec"] + w["b_dec"]).double() @ inverse + mean).float()
    sae = only(tmp_path / "sae").sae
    torch.testing.assert_close(sae.encode(x), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(z), rebuilt, rtol=1e-4, atol=1e-3)


def flat(**more: object) -> dict[str, object]:
    """A config as it was before version 6."""
    return {
        "model_name": "gpt2-small",
        "hook_point": "blocks.8.hook_resid_pre",
        "hook_point_layer": 8,
        "hook_point_head_index": None,
        "d_in": D,
        "d_sae": F,
        "dtype": "torch.float32",
        "device": "cpu",
        "context_size": 128,
        "dataset_path": "openwebtext",
        "l1_coefficient": 8e-5,
        **more,
    }


def test_a_flat_config_is_translated(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    write_folder(tmp_path / "sae", flat(activation_fn_str="relu", normalize_activations=False), some(PLAIN))
    found = only(tmp_path / "sae")
    assert (found.hook, found.model, found.context, found.bos) == ("blocks.8.hook_resid_pre", "gpt2-small", 128, True)
    assert found.notes == ["The config is of a SAELens before version 6 and was translated."]
    z = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert "l1_coefficient" not in found.sae.metadata and found.sae.metadata["dataset_path"] == "openwebtext"


def test_a_flat_config_may_say_topk_by_its_activation(tmp_path: Path) -> None:
    w, x = weights(unit=True), inputs()
    said = flat(activation_fn_str="topk", activation_fn_kwargs={"k": 5}, normalize_activations="layer_norm")
    write_folder(tmp_path / "sae", said, {name: w[name] for name in PLAIN.split()})
    found = only(tmp_path / "sae")
    assert found.sae.norm == "layer_norm"
    read = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
    close(found.sae.encode(x), only_largest((read - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 5))


@pytest.mark.parametrize(("used", "ones"), [(True, False), (False, False), (False, True)])
def test_a_scaling_factor_multiplies_latents_when_they_are_decoded(tmp_path: Path, used: bool, ones: bool) -> None:
    w, x = weights(), inputs()
    factor = torch.ones(F) if ones else torch.linspace(0.5, 2, F)
    write_folder(tmp_path / "sae", flat(finetuning_scaling_factor=used), some(PLAIN) | {"scaling_factor": factor})
    found = only(tmp_path / "sae")
    z = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    same_everywhere(found, x, z, (z * (factor if used else 1)) @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    said = ["was folded into W_dec"] if used else [] if ones else ["says that it is not used"]
    assert len(found.notes) == 1 + len(said) and all(one in found.notes[1] for one in said)


def test_a_matrix_that_is_stored_the_other_way_round_is_turned(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    turned = some(PLAIN) | {"W_enc": w["W_enc"].t(), "W_dec": w["W_dec"].t()}
    write_folder(tmp_path / "sae", config("standard"), turned)
    found = only(tmp_path / "sae")
    z = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"], tmp_path / "ours")
    assert [note.split()[0] for note in found.notes] == ["W_enc", "W_dec"]


@pytest.mark.parametrize("rescaled", [True, False])
def test_a_checkpoint_of_a_batch_top_k_training_has_one_threshold(tmp_path: Path, rescaled: bool) -> None:
    w, x = weights(), inputs()
    tensors = some(PLAIN) | {"topk_threshold": torch.tensor(1.25, dtype=torch.float64)}
    said = config("matryoshka_batchtopk", k=7.5, rescale_acts_by_decoder_norm=rescaled)
    said["normalize_activations"] = "expected_average_only_in"
    write_folder(tmp_path / "sae", said, tensors)
    (tmp_path / "sae/activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    norm = w["W_dec"].norm(dim=1) if rescaled else torch.ones(F)
    pre = ((x * 2 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norm
    z = pre * (pre > 1.25)
    same_everywhere(only(tmp_path / "sae"), x, z, ((z / norm) @ w["W_dec"] + w["b_dec"]) / 2, tmp_path / "ours")


def test_an_old_training_checkpoint_has_the_logarithm_of_its_thresholds(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    write_folder(tmp_path, config("jumprelu"), some(PLAIN) | {"log_threshold": w["threshold"].log()})
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    close(only(tmp_path).sae.encode(x), pre.relu() * (pre > w["threshold"]))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("jump", [False, True])
def test_transcoders_read_x_as_it_is(tmp_path: Path, skip: bool, jump: bool) -> None:
    w, x = weights(d_out=10), inputs()
    W_skip = torch.randn(10, D, generator=torch.Generator().manual_seed(5))
    name = f"{'jumprelu_' if jump else ''}{'skip_' if skip else ''}transcoder"
    said = config(name, d_out=10, apply_b_dec_to_input=False)
    said["metadata"] = METADATA | {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    names = f"{PLAIN} threshold" if jump else PLAIN
    tensors = {one: w[one] for one in names.split()} | ({"W_skip": W_skip} if skip else {})
    write_folder(tmp_path / "sae", said, tensors)
    found = only(tmp_path / "sae")
    assert (found.hook, found.hook_out) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    pre = x @ w["W_enc"] + w["b_enc"]
    z = pre.relu() * (pre > w["threshold"]) if jump else pre.relu()
    same_everywhere(found, x, z, z @ w["W_dec"] + w["b_dec"] + (x @ W_skip.t() if skip else 0), tmp_path / "ours")


def test_l0_is_taken_from_the_firing_shares_where_the_config_does_not_say_it(tmp_path: Path) -> None:
    write_folder(tmp_path, flat(), some(PLAIN))
    save_file({"sparsity": torch.log10(torch.full((F,), 0.125))}, tmp_path / "sparsity.safetensors")
    assert only(tmp_path).declared["l0"] == pytest.approx(F / 8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "matching_pursuit"}, 'architecture "matching_pursuit"'),
        ({"architecture": "temporal"}, 'architecture "temporal"'),
        ({"architecture": "abstopk", "k": 4}, 'architecture "abstopk"'),
        ({"architecture": ["topk"]}, r'architecture \["topk"\]'),
        ({"normalize_activations": "running"}, 'normalize_activations "running"'),
        ({"activation_fn_str": "tanh-relu"}, 'activation_fn "tanh-relu"'),
        ({"hook_point_head_index": 3}, "reads one head alone"),
        ({"d_sae": F + 1}, rf"W_enc of shape \({D}, {F}\), and \({D}, {F + 1}\) is expected"),
        ({"architecture": "jumprelu"}, "has no log_threshold: it holds W_dec, W_enc, b_dec, b_enc"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    write_folder(tmp_path, flat(**changes), some(PLAIN))
    with pytest.raises(ValueError, match=says):
        only(tmp_path)


@needs_saelens
@pytest.mark.timeout(300)
def test_saelens_reads_the_original_and_what_we_save_of_it_alike(tmp_path: Path) -> None:
    """It is asked of both folders: the one as it was published, and the one that we make of it."""
    unit = weights(unit=True)
    plain = {name: unit[name] for name in PLAIN.split()}
    jump = plain | {"threshold": unit["threshold"]}
    gated = {name: plain[name] for name in ("W_enc", "W_dec", "b_dec")}
    gated |= {"b_gate": unit["b_enc"], "b_mag": weights(2)["b_enc"], "r_mag": weights(1)["b_enc"] / 3}
    skip = jump | {"W_skip": torch.randn(D, D, generator=torch.Generator().manual_seed(5))}
    published = {
        "layer_norm": (config("topk", k=7, normalize_activations="layer_norm"), plain),
        "constant": (config("jumprelu", normalize_activations="constant_norm_rescale"), jump),
        "not_centred": (config("standard", apply_b_dec_to_input=False), plain),
        "gated": (config("gated"), gated),
        "flat_topk": (flat(activation_fn_str="topk", activation_fn_kwargs={"k": 5}), plain),
        "flat": (flat(), plain),
        "skip": (config("jumprelu_skip_transcoder", d_out=D, apply_b_dec_to_input=False), skip),
    }
    x, folders = inputs(), []
    for name, (said, tensors) in published.items():
        write_folder(tmp_path / name, said, tensors)
        saved(only(tmp_path / name), tmp_path / f"{name}-ours")
        folders += [tmp_path / name, tmp_path / f"{name}-ours"]
    theirs = ask_saelens(folders, [x] * len(folders), [x] * len(folders), tmp_path)
    for name, original, ours in zip(published, theirs[::2], theirs[1::2], strict=True):
        close(only(tmp_path / name).sae.encode(x), original.z)
        close(ours.z, original.z)
        close(ours.rebuilt, original.rebuilt)
        assert json.dumps(ours.read["hook_name"]) == json.dumps(original.read["hook_name"]), name
