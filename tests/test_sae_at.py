"""An SAE as it was at a checkpoint: the very weights of the state, of each SAE of a grid; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_job import folders
from safetensors.torch import load_file
from test_train_ends import renamed
from test_train_job import SPEC, data, job, model_folder, recipe_of, steps_saved

from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.paths import Paths
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.sae_at import SaeAt, lineage, open_sae_at

__all__ = ["data", "model_folder"]  # fixtures

EVERY: dict[str, Any] = {"checkpoint_every_s": 1e-6, "keep_checkpoints": 100}  # a checkpoint of each step


def opened(data: Path, called: str) -> SaeAt:
    return open_sae_at(called, Link(data, Paths(data)))


def state(data: Path, step: int, number: int = 0) -> dict[str, torch.Tensor]:
    found = load_file(data / "runs" / "1" / "checkpoints" / str(step) / "state.safetensors")
    prefix = f"{number}.sae."
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}


def test_checkpoints_that_were_asked_for_stay_when_the_training_is_done(data: Path) -> None:
    job(data, **EVERY, steps=6)
    assert steps_saved(data) == [1, 2, 3, 4, 5, 6]
    job(data, run=2, name="usual", checkpoint_every_s=1e-6, steps=6)
    assert steps_saved(data, 2) == [6]


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "jumprelu", "standard", "gated", "matryoshka"])
def test_its_weights_are_those_of_the_state(data: Path, architecture: str) -> None:
    job(data, **EVERY, steps=6, architecture=architecture)
    scale = recipe_of(data)["resolved"]["scale"]
    for step in (2, 6):
        found, was = opened(data, f"s@{step}").load(), state(data, step)
        assert torch.equal(found.W_dec, was["W_dec"])
        assert torch.equal(found.W_enc, was["W_enc_T"].t())
        torch.testing.assert_close(found.b_dec, was["b_dec"] / scale)
        torch.testing.assert_close(found.b_enc, was["b_enc"] / scale)
    assert opened(data, "s@2").lacks_threshold == (architecture in ("batchtopk", "matryoshka"))


def test_the_last_checkpoint_has_the_weights_that_were_saved(data: Path) -> None:
    job(data, **EVERY, steps=6, architecture="topk")
    at_end, saved = opened(data, "s@6").load(), SparseAutoencoder.load(data / "saes" / "s")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        torch.testing.assert_close(getattr(at_end, name), getattr(saved, name))
    assert at_end.metadata["hook_name"] == SPEC["hook"]


def test_a_threshold_is_the_one_that_training_remembers(data: Path) -> None:
    job(data, **EVERY, steps=3)
    rule = opened(data, "s@2").load().rule
    assert isinstance(rule, JumpReLURule)
    scale = recipe_of(data)["resolved"]["scale"]
    torch.testing.assert_close(rule.threshold[0], state(data, 2)["threshold"] / scale)


def test_each_of_a_grid_is_found_in_its_checkpoints_of_every_pass(data: Path) -> None:
    job(data, **EVERY, steps=4, width=[64, 96], seed=[0, 1], saes_at_once=2)
    for name in folders(data, "saes"):
        recipe = recipe_of(data, name)
        found = opened(data, f"{name}@3").load()
        for path in (data / "runs" / "1" / "checkpoints").iterdir():
            about = json.loads((path / "manifest.json").read_text())["about"]
            if about["step"] == 3 and name in about["saes"]:
                assert torch.equal(found.W_dec, state(data, int(path.name), about["saes"].index(name))["W_dec"])
                break
        else:
            pytest.fail(f"{name} has no checkpoint")
        assert found.d_sae == recipe["width"]


def test_a_transcoder_comes_back_with_its_skip(data: Path) -> None:
    hooks = {"hook": "blocks.1.mlp.hook_in", "hook_out": "blocks.1.hook_mlp_out"}
    job(data, **EVERY, steps=4, architecture="transcoder", skip=True, **hooks)
    found, was = opened(data, "s@2").load(), state(data, 2)
    resolved = recipe_of(data)["resolved"]
    assert found.W_skip is not None
    torch.testing.assert_close(found.W_skip, was["W_skip"] * (resolved["scale"] / resolved["scale_out"]))


def refusal(data: Path, called: str) -> str:
    with pytest.raises(Refused) as refused:
        opened(data, called).load()
    assert refused.value.field == "saes"
    return str(refused.value)


def test_what_is_not_there_is_said_with_what_is(data: Path) -> None:
    job(data, **EVERY, steps=4)
    assert refusal(data, "nobody@3") == "there is no SAE called nobody: train one first"
    said = refusal(data, "s@9")
    assert said.startswith("s has no checkpoint of step 9; there is one each of 1, 2, 3, 4.")
    assert "--keep-checkpoints" in said
    path = data / "runs" / "1" / "checkpoints" / "3" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(data, "s@3") == "s@3: this checkpoint is damaged"
    shutil.rmtree(data / "runs")
    assert refusal(data, "s@3") == "s has no checkpoints any more: they went with its job; leave out @3"


def test_an_sae_that_was_brought_in_has_no_checkpoints(data: Path) -> None:
    job(data, steps=2)
    path = data / "saes" / "s" / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "imported": {"source": "somewhere"}}))
    assert refusal(data, "s@2") == "s was not trained here, so it has no checkpoints: leave out @2"


def test_those_of_one_training_and_of_one_beginning_are_known(data: Path) -> None:
    job(data, **EVERY, steps=3)
    job(data, run=2, name="again", steps=3, k=8)
    job(data, run=3, name="other", steps=3, seed=1)
    job(data, run=4, name="wide", steps=3, width=96)
    job(data, run=5, name="more", steps=5, extends="s")
    one = opened(data, "s@1")
    kinds = {name: lineage(one, opened(data, name)) for name in ("s@2", "s", "again", "other", "wide", "more")}
    assert kinds == {
        "s@2": "training", "s": "training", "again": "beginning", "other": None, "wide": None, "more": "extended"
    }  # fmt: skip
    assert lineage(opened(data, "more"), one) == "extended"


def test_an_sae_that_was_renamed_before_and_after_it_was_extended_is_known(data: Path) -> None:
    job(data, steps=3)
    renamed(data, "s", "t")
    job(data, run=2, name="more", steps=5, extends="t")
    renamed(data, "t", "u")
    assert lineage(opened(data, "u"), opened(data, "more")) == "extended"
