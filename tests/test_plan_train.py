"""The planner's sizes against those of what the engine really holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

import mistudiod.demo
from mistudiod import plan_sae, plan_train
from mistudiod.engine import baselines, harvest, held_out, kernels, lm, schedule, sparse
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.base import Settings, Shape
from mistudiod.engine.lm import load_lm
from mistudiod.engine.trainer import Trainer, View
from mistudiod.facts import read_facts
from mistudiod.plan_disk import disk_bytes, store_bytes
from mistudiod.plan_model import Reading
from mistudiod.plan_train import Choices, Run, phases, run_of
from mistudiod.specs import Train

PICO = read_facts(Path(mistudiod.demo.__file__).parent / "pico")
TOKENIZATION = {"context": 16, "train_windows": 3000, "held_out_windows": 60}
CHOICES = Choices("fp32", 64, 8192, 256, 1, False)
HOOKS = ["blocks.3.hook_resid_post", "blocks.1.hook_resid_pre"]


def run(**fields: Any) -> Run:
    given = {"hook": HOOKS[0], "width": 512, "k": 16, "batch_tokens": 256, "tokens": 100_000, **fields}
    spec = Train.model_validate({"name": "s", "tokenization": "t", **given})
    return run_of(spec, PICO, TOKENIZATION, "cpu")


def test_the_constants_are_the_engines() -> None:
    assert plan_train.PASS_TOKENS["cpu"] == lm.PASS_TOKENS["cpu"]
    assert plan_train.PASS_TOKENS["cuda"] == plan_train.PASS_TOKENS["unified"] == lm.PASS_TOKENS["cuda"]
    assert plan_sae.BLOCK_BYTES["cpu"] == 4 * kernels.BLOCK_ELEMENTS
    assert plan_sae.BLOCK_BYTES["cuda"] == 4 * kernels.BLOCK_ELEMENTS_CUDA
    assert plan_sae.MIN_BLOCK_ROWS == kernels.MIN_BLOCK_ROWS
    assert plan_sae.DEAD_STEPS == schedule.LEAST_DEAD_STEPS
    assert plan_sae.RANDOM_ROWS == baselines.RANDOM_ROWS
    assert (plan_sae.LIST_BYTES, plan_sae.SPARE, plan_sae.SPARE_SHARE) == (
        sparse.LIST_BYTES, sparse.SPARE, sparse.SPARE_SHARE,
    )  # fmt: skip
    assert (plan_train.HELD_BYTES, plan_train.LEAST_HELD_TOKENS) == (held_out.HELD_BYTES, held_out.LEAST_TOKENS)
    assert plan_train.PASS_WINDOWS == harvest.MAX_LM_WINDOWS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_is_as_large_as_is_said(architecture: str) -> None:
    more = {"hook_out": HOOKS[1], "skip": True} if "transcoder" in architecture else {}
    found = run(architecture=architecture, **more)
    [one], d = found.saes, PICO.d_model
    sae = ARCHITECTURES[architecture].init(Shape(d, one.width, d, one.skip), Settings(one.k, 10_000, l1=0.1), 0)
    columns = View(slice(0, d), 1.0)
    trainer = Trainer(sae, schedule.Schedule(10, 1e-3), columns, columns if more else None)
    trainer.advance(0, torch.randn(64, d), None)
    [sizes] = (each.sizes for each in found.passes(CHOICES))
    assert sum(tensor.numel() for tensor in sae.params.values()) == sizes.parameters
    size = sum(tensor.nbytes for tensor in trainer.tensors().values())
    assert 0 <= size - sizes.state_bytes < 200, "Adam counts its steps"
    assert plan_sae.k_aux(d) == sae.k_aux


def test_of_the_disk_checkpoints_saes_and_kept_activations_are_counted() -> None:
    one = run()
    [sizes] = (each.sizes for each in one.passes(CHOICES))
    assert disk_bytes(one, CHOICES) == (2 + 2) * sizes.state_bytes + sizes.bytes, "two, the best, and one being written"
    assert disk_bytes(run(keep_checkpoints=5), CHOICES) - disk_bytes(one, CHOICES) == 3 * sizes.state_bytes
    numbers = 3060 * 16 * PICO.d_model
    assert store_bytes(one) == 0
    assert store_bytes(run(keep_activations="bf16")) == 2 * numbers
    assert store_bytes(run(keep_activations="bf16", hook=HOOKS)) == 4 * numbers
    assert store_bytes(run(keep_activations="int8")) == numbers + 3060 * 16 * 4, "a scale for each token"
    kept = run(keep_activations="bf16")
    whole = disk_bytes(kept, CHOICES)
    assert whole - disk_bytes(kept, CHOICES, 1_000_000) == 1_000_000, "what is there already"
    assert disk_bytes(kept, CHOICES, 1 << 40) == disk_bytes(one, CHOICES)


def test_every_pass_over_the_text_leaves_its_last_checkpoint() -> None:
    grid = run(seed=[0, 1, 2])
    [single] = (each.sizes for each in run().passes(CHOICES))
    alone, together = (disk_bytes(grid, replace(CHOICES, saes_at_once=n)) for n in (1, 3))
    assert alone == (2 + 4) * single.state_bytes + 3 * single.bytes
    assert together == 3 * 4 * single.state_bytes + 3 * single.bytes


def test_a_pass_reads_the_hooks_of_its_saes_only() -> None:
    grid = run(hook=HOOKS)
    both = phases(grid, replace(CHOICES, saes_at_once=2))
    apart = phases(grid, CHOICES)
    rows = grid.mixing(CHOICES).rows
    assert both["train"]["buffer"] - apart["train"]["buffer"] == rows * 2 * PICO.d_model
    assert both["train"]["sae"] == 2 * apart["train"]["sae"]
    assert both["load"] == apart["load"], "up to the deepest hook"


def test_what_takes_most_in_any_pass_is_what_counts() -> None:
    grid = run(width=[256, 1024, 512])
    alone = phases(grid, CHOICES)
    largest = phases(run(width=1024), CHOICES)
    assert alone == largest
    together = phases(grid, replace(CHOICES, saes_at_once=3))
    parts = [phases(run(width=width), CHOICES)["train"] for width in (256, 1024, 512)]
    assert together["train"]["optimizer"] == sum(part["optimizer"] for part in parts)
    assert max(part["step"] for part in parts) < together["train"]["step"] < sum(part["step"] for part in parts)


def test_a_buffer_is_no_larger_than_the_text() -> None:
    found = run()
    held = [phases(found, replace(CHOICES, buffer_tokens=n))["train"]["buffer"] for n in (8192, 16384, 1 << 30)]
    assert held[0] < held[1] < held[2] <= (3000 * 16 + 16) * (2 * PICO.d_model + 16)
    assert "refill" in phases(found, CHOICES) and "refill" not in phases(run(tokens=256), CHOICES)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("whole", [False, True])
def test_weights_are_those_of_what_is_loaded(tmp_path: Path, family: str, precision: Any, whole: bool) -> None:
    folder = tiny_model(family, tmp_path / "model")
    hooks = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre")
    reading = Reading(read_facts(folder), hooks, precision, whole)
    loaded = load_lm(folder, precision=precision, layers=None if whole else reading.layers)
    assert reading.layers == (reading.facts.n_layers if whole else 1)
    assert reading.weights() == sum(parameter.nbytes for parameter in loaded.model.parameters())


def test_a_step_taken_in_parts_takes_less() -> None:
    large = run(batch_tokens=16_384, k=128, tokens=10_000_000)

    def step(micro: int, device: Any) -> int:
        return phases(replace(large, device=device), replace(CHOICES, micro_tokens=micro))["train"]["step"]

    for device in ("cpu", "cuda", "unified"):
        assert step(16_384, device) > step(4096, device) > step(1024, device)


def test_an_architecture_without_top_k_takes_blocks_and_no_entries() -> None:
    def step(architecture: str, k: int) -> int:
        return phases(run(architecture=architecture, k=k), CHOICES)["train"]["step"]

    for architecture in ("standard", "gated", "jumprelu"):
        assert step(architecture, 4) == step(architecture, 64)
    assert step("topk", 4) < step("topk", 64) < step("batchtopk", 64)
    assert step("standard", 4) < step("jumprelu", 4) < step("gated", 4)


def test_the_whole_model_is_counted_with_what_its_loss_takes() -> None:
    part, whole = (phases(run(), replace(CHOICES, whole_model=on)) for on in (False, True))
    assert (
        whole["train"]["weights"] - part["train"]["weights"]
        == PICO.weight_bytes["fp32"] - Reading(PICO, (HOOKS[0],), "fp32").weights()
    )
    assert whole["evaluate"]["evaluation"] > part["evaluate"]["evaluation"] + plan_train.LOGIT_BYTES // 2
