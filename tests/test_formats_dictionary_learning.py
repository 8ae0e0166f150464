"""dictionary_learning: each of its classes written from its description, held to its rule and to the library itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mistudiod.engine.formats import FolderListing, find, read
from mistudiod.engine.formats.pickles import Converted
from tests.dictionary_learning_library import ask_library, needs_library
from tests.published import D, F, assert_same, imported, inputs, linear, topk, vector

K, THRESHOLD = 5, 0.4

Rule = Callable[[dict[str, Tensor], Tensor], Tensor]


def maps() -> dict[str, Tensor]:
    w = {**linear("encoder", F, D, 0), **linear("decoder", D, F, 1)}
    del w["decoder.bias"]
    return w


def matrices() -> dict[str, Tensor]:
    w = maps()
    return {
        "W_enc": w["encoder.weight"].t().contiguous(),
        "b_enc": w["encoder.bias"],
        "W_dec": w["decoder.weight"].t().contiguous(),
        "b_dec": vector(D, 5),
    }


def chosen(threshold: float | None = THRESHOLD) -> dict[str, Tensor]:
    numbers = {"k": torch.tensor(K, dtype=torch.int)}
    return numbers | ({} if threshold is None else {"threshold": torch.tensor(threshold)})


def gated() -> dict[str, Tensor]:
    w = maps()
    del w["encoder.bias"]
    return {
        **w,
        "decoder_bias": vector(D, 5),
        "r_mag": vector(F, 6),
        "gate_bias": vector(F, 7),
        "mag_bias": vector(F, 8),
    }


WEIGHTS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "AutoEncoder": lambda: {**maps(), "bias": vector(D, 5)},
    "AutoEncoderNew": lambda: {**maps(), "decoder.bias": vector(D, 5)},
    "GatedAutoEncoder": gated,
    "AutoEncoderTopK": lambda: {**maps(), "b_dec": vector(D, 5), **chosen()},
    "BatchTopKSAE": lambda: {**maps(), "b_dec": vector(D, 5), **chosen()},
    "MatryoshkaBatchTopKSAE": lambda: {**matrices(), **chosen(), "group_sizes": torch.tensor([10, F - 10])},
    "JumpReluAutoEncoder": lambda: {**matrices(), "threshold": 0.2 + vector(F, 9).abs()},
}


def linear_pre(w: dict[str, Tensor], x: Tensor) -> Tensor:
    return x @ w["encoder.weight"].t() + w["encoder.bias"]


def gates(w: dict[str, Tensor], x: Tensor) -> Tensor:
    product = (x - w["decoder_bias"]) @ w["encoder.weight"].t()
    return (product + w["gate_bias"] > 0) * torch.relu(w["r_mag"].exp() * product + w["mag_bias"])


def cut(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return torch.relu(pre) * (torch.relu(pre) > threshold)


RULES: dict[str, Rule] = {
    # its loader gives the rows of the decoder unit norm, and the latents theirs
    "AutoEncoder": lambda w, x: torch.relu(linear_pre(w, x - w["bias"])) * w["decoder.weight"].norm(dim=0),
    "AutoEncoderNew": lambda w, x: torch.relu(linear_pre(w, x)),
    "GatedAutoEncoder": gates,
    "AutoEncoderTopK": lambda w, x: topk(linear_pre(w, x - w["b_dec"]), K),
    "BatchTopKSAE": lambda w, x: cut(linear_pre(w, x - w["b_dec"]), THRESHOLD),
    "MatryoshkaBatchTopKSAE": lambda w, x: cut((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], THRESHOLD),
    "JumpReluAutoEncoder": lambda w, x: cut(x @ w["W_enc"] + w["b_enc"], w["threshold"]),
}


def rebuilt(kind: str, w: dict[str, Tensor], z: Tensor) -> Tensor:
    rows = w["W_dec"] if "W_dec" in w else w["decoder.weight"].t()
    if kind == "AutoEncoder":
        rows = rows / rows.norm(dim=1, keepdim=True)
    return z @ rows + next(w[name] for name in ("bias", "decoder.bias", "decoder_bias", "b_dec") if name in w)


def trainer(kind: str) -> dict[str, Any]:
    about = {"trainer_class": "T", "dict_class": kind, "activation_dim": D, "dict_size": F, "lr": 1e-4, "layer": 3}
    if "TopK" in kind:
        about["k"] = K
    return {**about, "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_3"}


def write(
    folder: Path,
    kind: str,
    state: dict[str, Any] | None = None,
    buffer: dict[str, Any] | None = None,
    **changes: object,
) -> dict[str, Tensor]:
    folder.mkdir(parents=True)
    w = WEIGHTS[kind]()
    torch.save(w if state is None else state, folder / "ae.pt")
    config = {"trainer": {**trainer(kind), **changes}, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128}}
    config["buffer"] |= buffer or {}
    (folder / "config.json").write_text(json.dumps(config))
    return w


@pytest.mark.parametrize("kind", WEIGHTS)
def test_each_class(tmp_path: Path, kind: str) -> None:
    w = write(tmp_path / "repo" / "resid_post_layer_3" / "trainer_0", kind)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert (one.found.format, one.found.path) == ("dictionary_learning", "resid_post_layer_3/trainer_0")
    assert (one.found.layer, one.found.width, one.found.l0) == (3, F, K if "TopK" in kind else None)
    assert (one.hook, one.hook_out, one.context) == ("blocks.3.hook_resid_post", "blocks.3.hook_resid_post", 128)
    assert (one.model, one.found.pickle) == ("EleutherAI/pythia-70m-deduped", True)
    x = inputs()
    z = RULES[kind](w, x)
    # rows of no common norm, and the k largest of them: such are not saved as they are
    assert_same(one, x, z, rebuilt(kind, w, z), None if kind == "AutoEncoderTopK" else tmp_path / "saved")


@pytest.mark.parametrize("kind", WEIGHTS)
def test_of_a_run_that_was_cut_off_the_scale_of_its_activations_is_folded(tmp_path: Path, kind: str) -> None:
    w, factor = WEIGHTS[kind](), 8.0
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()
    state = {"step": 10, "ae": w, "optimizer": optimizer, "config": trainer(kind), "norm_factor": factor}
    write(tmp_path / "repo", kind, state)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    x = inputs(factor)
    z = RULES[kind](w, x / factor)
    assert_same(one, x / 1, z * factor, rebuilt(kind, w, z) * factor)
    assert any("divided by 8" in note for note in one.notes)


def test_a_threshold_that_was_never_set_lets_every_positive_latent_fire(tmp_path: Path) -> None:
    state = {**maps(), "b_dec": vector(D, 5), **chosen(-1.0)}
    write(tmp_path / "repo", "BatchTopKSAE", state)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    torch.testing.assert_close(one.sae.encode(inputs()), torch.relu(linear_pre(state, inputs() - state["b_dec"])))
    assert any("never set" in note for note in one.notes)


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE"])
def test_an_old_file_has_its_k_from_its_config(tmp_path: Path, kind: str) -> None:
    state = {**maps(), "b_dec": vector(D, 5)}
    write(tmp_path / "repo", kind, state)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    torch.testing.assert_close(one.sae.encode(inputs()), topk(linear_pre(state, inputs() - state["b_dec"]), K))
    assert any("no threshold" in note for note in one.notes) == (kind == "BatchTopKSAE")


@pytest.mark.parametrize(
    ("module", "layer", "io", "hook"),
    [
        ("resid_post_layer_8", 8, "out", "blocks.8.hook_resid_post"),
        ("resid_layer3", None, "out", "blocks.3.hook_resid_post"),
        ("attn_layer4", None, "out", "blocks.4.hook_attn_out"),
        ("mlp_layer2", 2, "in", "blocks.2.mlp.hook_in"),
        ("mlp_out_layer_2", 2, "out", "blocks.2.hook_mlp_out"),
        (None, 5, "out", "blocks.5.hook_resid_post"),
        (None, None, "out", None),
    ],
)
def test_the_hook_is_what_its_module_gives(
    tmp_path: Path, module: str | None, layer: int | None, io: str, hook: str | None
) -> None:
    write(tmp_path / "repo", "AutoEncoder", buffer={"io": io}, submodule_name=module, layer=layer)
    one = imported(tmp_path / "repo", tmp_path / "scratch")
    assert one.hook == hook
    guessed = [note for note in one.notes if "config.json" in note]
    assert bool(guessed) == (module is None)


@pytest.mark.parametrize(
    ("kind", "state", "changes", "says"),
    [
        ("AutoEncoder", None, {"dict_class": "CrossCoder"}, "dict_class CrossCoder, and only AutoEncoder"),
        ("AutoEncoder", None, {"dict_size": 41}, "is 16 by 40, and config.json says 16 by 41"),
        ("AutoEncoder", {}, {}, "holds no weights by name"),
        ("AutoEncoder", {"encoder.weight": torch.ones(F, D)}, {}, "has no encoder.bias"),
        ("AutoEncoder", {"encoder.weight": torch.ones(F)}, {}, "a matrix is expected"),
        ("AutoEncoderTopK", {**maps(), "b_dec": vector(D, 5), "k": torch.tensor(41)}, {}, "k 41, more than its 40"),
        ("AutoEncoderTopK", {**maps(), "b_dec": vector(D, 5)}, {"k": None}, "k null, which must be a whole number"),
        (
            "BatchTopKSAE",
            {**WEIGHTS["BatchTopKSAE"](), "b_dec": torch.full((D,), torch.inf)},
            {},
            "b_dec that is not all",
        ),
        ("JumpReluAutoEncoder", {**matrices(), "threshold": torch.tensor(0.1)}, {}, "no threshold"),
    ],
)
def test_what_is_damaged_or_not_understood_is_one_sentence(
    tmp_path: Path, kind: str, state: dict[str, Any] | None, changes: dict[str, object], says: str
) -> None:
    write(tmp_path / "repo", kind, state, **changes)
    with pytest.raises(ValueError, match=says) as refused:
        imported(tmp_path / "repo", tmp_path / "scratch")
    assert "\n" not in str(refused.value)


def test_a_transcoder_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "repo", "AutoEncoder", buffer={"io": "in_and_out"})
    with pytest.raises(ValueError, match="is of a transcoder"):
        imported(tmp_path / "repo", tmp_path / "scratch")


def test_through_the_process_of_its_own(tmp_path: Path) -> None:
    w = write(tmp_path / "repo", "AutoEncoderNew")
    listing = FolderListing(tmp_path / "repo")
    (tmp_path / "scratch").mkdir()
    one = read(Converted(listing, tmp_path / "scratch"), find(listing)[0])
    z = RULES["AutoEncoderNew"](w, inputs())
    assert_same(one, inputs(), z, rebuilt("AutoEncoderNew", w, z))


def test_without_leave_a_pickle_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "repo", "AutoEncoder")
    listing = FolderListing(tmp_path / "repo")
    with pytest.raises(ValueError, match="is a pickle"):
        read(listing, find(listing)[0])


@needs_library
def test_the_library_computes_the_same_of_the_same_files(tmp_path: Path) -> None:
    x = inputs()
    folders = [tmp_path / "repo" / kind for kind in WEIGHTS]
    for folder in folders:
        write(folder, folder.name)
    theirs = ask_library(folders, x, tmp_path)
    for folder, (z, again) in zip(folders, theirs, strict=True):
        one = imported(tmp_path / "repo", tmp_path / "scratch", folder.name)
        assert_same(one, x, z, again)
