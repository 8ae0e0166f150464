"""The planner's sizes against those of what the engine really holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

import mistudiod.demo
from mistudiod import plan_train
from mistudiod.engine import activations, kernels, lm, measure
from mistudiod.engine.activations import ActivationBatches, Harvest
from mistudiod.engine.architectures import topk
from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.lm import load_lm
from mistudiod.engine.schedule import Schedule
from mistudiod.engine.train import Training
from mistudiod.facts import read_facts
from mistudiod.plan_model import Reading
from mistudiod.plan_train import Choices, Run, disk_bytes, phases

PICO = read_facts(Path(mistudiod.demo.__file__).parent / "pico")
RUN = Run(
    device="cpu",
    facts=PICO,
    hook="blocks.3.hook_resid_post",
    width=512,
    k=16,
    batch_tokens=256,
    tokens=100_000,
    context=16,
    train_windows=300,
    held_out_tokens=1000,
)
CHOICES = Choices("fp32", 64, 2048, 256)


class Windows:
    """Windows of tokens none of which is special, and how many are read at once."""

    context = RUN.context

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def rows(self, indices: np.ndarray) -> np.ndarray:
        self.sizes.append(len(indices))
        return np.ones((len(indices), self.context), dtype=np.int64)

    def special_mask(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros(rows.shape, dtype=bool)


def batches(windows: Windows) -> ActivationBatches:
    def forward(ids: torch.Tensor) -> torch.Tensor:
        return torch.randn(*ids.shape, RUN.d_in, generator=torch.Generator().manual_seed(0))

    harvest = Harvest(windows, forward, RUN.d_in, lm_tokens=CHOICES.forward_tokens)
    return ActivationBatches(harvest, RUN.train_windows, RUN.batch_tokens, 0, CHOICES.buffer_tokens)


def test_the_constants_are_the_engines() -> None:
    assert plan_train.BLOCK_TOKENS == activations.BLOCK_TOKENS
    assert plan_train.PASS_WINDOWS == activations._MAX_LM_WINDOWS
    assert plan_train.PASS_TOKENS["cpu"] == lm.PASS_TOKENS["cpu"]
    assert plan_train.PASS_TOKENS["cuda"] == plan_train.PASS_TOKENS["unified"] == lm.PASS_TOKENS["cuda"]
    assert plan_train.BLOCK_BYTES["cpu"] == 4 * kernels.BLOCK_ELEMENTS
    assert plan_train.BLOCK_BYTES["cuda"] == 4 * kernels.BLOCK_ELEMENTS_CUDA
    assert plan_train.MIN_BLOCK_ROWS == kernels.MIN_BLOCK_ROWS
    assert plan_train.DEAD_AFTER_TOKENS == topk.DEAD_AFTER_TOKENS
    assert plan_train._k_aux(RUN.d_in) == TopK.init(RUN.d_in, 64, 4, 0).k_aux
    assert plan_train.RANDOM_ROWS == measure.RANDOM_ROWS


def test_a_checkpoint_is_as_large_as_is_said() -> None:
    training = Training(TopK.init(RUN.d_in, RUN.width, RUN.k, 0), batches(Windows()), Schedule(10, 1e-3), 1.0)
    training.advance()
    size = sum(tensor.nbytes for tensor in training.tensors().values())
    assert 0 <= size - RUN.state_bytes < 100, "Adam counts its steps"
    assert sum(tensor.numel() for tensor in training.topk.params.values()) == RUN.parameters
    assert disk_bytes(RUN) == 3 * RUN.state_bytes + 4 * RUN.parameters


def test_the_buffer_and_the_passes_are_as_large_as_is_said() -> None:
    windows = Windows()
    real = batches(windows)
    next(real)
    found = phases(RUN, CHOICES)
    assert found["harvest"]["buffer"] == real._buffer.nbytes
    assert RUN.pass_tokens(CHOICES) == max(windows.sizes) * RUN.context
    assert "refill" in found, "300 windows of 16 tokens are more than a buffer of 2,048"
    assert "refill" not in phases(replace(RUN, tokens=1000), CHOICES)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_those_of_the_blocks_that_are_loaded(tmp_path: Path, family: str, precision: str) -> None:
    folder = tiny_model(family, tmp_path / "model")
    reading = Reading(read_facts(folder), "blocks.1.hook_resid_post", precision)
    loaded = load_lm(folder, precision=precision, layers=reading.layers)
    real = sum(parameter.nbytes for parameter in loaded.model.parameters())
    assert reading.weights() == real


def test_a_step_taken_in_parts_takes_less() -> None:
    def step(micro: int) -> int:
        run = replace(RUN, batch_tokens=16_384, k=128)
        return phases(run, replace(CHOICES, micro_tokens=micro))["train"]["step"]

    assert step(16_384) > step(4096) > step(1024)
