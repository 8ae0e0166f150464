"""The trainers of a pass: at the beginning, or as a checkpoint has left them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mistudiod.engine import checkpoint
from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.base import Settings, Shape
from mistudiod.engine.checkpoint import Checkpoint
from mistudiod.engine.schedule import Schedule, dead_after_tokens, plan
from mistudiod.engine.train import Training
from mistudiod.engine.trainer import Trainer, View, under
from mistudiod.specs import One, Train
from mistudiod.worker.train_source import Source

FORMAT = 2  # of checkpoints; those of version 0.3 and before had none, and another order of the text
USUAL_L1 = {"standard": 0.2, "gated": 0.3}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """Several autoencoders that are trained side by side, from one reading of the text."""

    ones: list[One]
    spec: Train  # of the whole grid
    source: Source  # with the hooks of this pass
    number: int  # of the pass, from 0
    passes: int

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.ones]

    def schedule(self, one: One) -> Schedule:
        spec = self.spec
        return plan(one.width, spec.batch_tokens, spec.tokens, spec.steps, spec.lr)

    def is_of(self, about: dict[str, Any]) -> bool:
        """Whether a checkpoint is of this job and holds every autoencoder of the pass."""
        return about.get("made_of") == self.made_of() and set(self.names) <= set(about["saes"])

    def made_of(self) -> dict[str, Any]:
        """What a checkpoint must have been made of to be gone on from."""
        made: dict[str, Any] = {
            "format": FORMAT,
            "spec": self.spec.model_dump(),
            "tokenization": self.source.tokenization,
            "buffer_tokens": self.source.chosen.buffer_tokens,
            "precision": self.source.chosen.precision,
        }
        return made


def found_checkpoint(folder: Path, one_pass: Pass) -> Checkpoint | None:
    """The newest one under ``folder`` of this job that holds every autoencoder of the pass."""
    found = checkpoint.latest(folder, one_pass.is_of)
    if found is None and checkpoint.exists(folder, lambda about: about.get("made_of") != one_pass.made_of()):
        log.warning("the checkpoints are of another version or were made of something else: training begins anew")
    return found


def begin(one_pass: Pass, batches: ActivationBatches) -> Training:
    """New trainers: activations scaled to a mean norm of sqrt(d), biases at their middle. Raises NoActivations."""
    source = one_pass.source
    found = {hook: batches.statistics(source.columns(hook)) for hook in source.hooks}
    first = batches.sample()[: one_pass.spec.batch_tokens]
    trainers = []
    for one in one_pass.ones:
        (scale, middle), (scale_out, middle_out) = found[one.hook], found[one.hook_out or one.hook]
        scales = (scale, scale_out if one.hook_out else None)
        trainer = _trainer(one_pass, one, scales, one_pass.schedule(one), middle * scale, middle_out * scale_out)
        trainer.sae.prepare(trainer.x.of(first))
        trainers.append(trainer)
    return Training(trainers, batches, source.chosen.micro_tokens)


def gone_on_with(one_pass: Pass, batches: ActivationBatches, found: Checkpoint) -> Training:
    """The trainers as a checkpoint of this job has them; it may hold others too."""
    where = [found.about["saes"].index(name) for name in one_pass.names]
    schedules = [
        replace(one_pass.schedule(one), peak_lr=found.about["schedules"][n][0], start=found.about["schedules"][n][1])
        for one, n in zip(one_pass.ones, where, strict=True)
    ]
    training = _loaded(one_pass, batches, found, where, schedules)
    log.warning("training goes on from step %d", training.step)
    return training


def extended(one_pass: Pass, batches: ActivationBatches, found: Checkpoint, name: str) -> Training:
    """The one trainer of another training, which was called ``name`` there, with a schedule for the steps to come.

    The learning rate is that of a training as long as both, never above the one it had.
    """
    number = found.about["saes"].index(name)
    usual = one_pass.schedule(one_pass.ones[0])
    peak_lr = min(usual.peak_lr, found.about["schedules"][number][0])
    schedule = Schedule(usual.steps, peak_lr, found.about["step"])
    return _loaded(one_pass, batches, found, [number], [schedule])


def _loaded(
    one_pass: Pass,
    batches: ActivationBatches,
    found: Checkpoint,
    where: Sequence[int],
    schedules: Sequence[Schedule],
) -> Training:
    """``where``: the number of each autoencoder in the checkpoint."""
    scales = found.about["scales"]
    trainers = [
        _trainer(one_pass, one, scales[number], schedule)
        for one, number, schedule in zip(one_pass.ones, where, schedules, strict=True)
    ]
    training = Training(trainers, batches, one_pass.source.chosen.micro_tokens)
    mine = {
        f"{new}.{name}": tensor
        for new, old in enumerate(where)
        for name, tensor in under(f"{old}.", found.tensors).items()
    }
    training.load(mine, found.about)
    return training


def _trainer(
    one_pass: Pass,
    one: One,
    scales: Sequence[float | None],
    schedule: Schedule,
    middle: Tensor | None = None,
    middle_out: Tensor | None = None,
) -> Trainer:
    """``scales`` of what is read and, for a transcoder, of what is rebuilt."""
    spec, source = one_pass.spec, one_pass.source.as_seen_by(one)
    settings = Settings(
        k=one.k,
        dead_after_tokens=dead_after_tokens(schedule.steps, spec.batch_tokens),
        l1=one.l1 or USUAL_L1.get(one.architecture, 0.0),
        tanh=spec.tanh if one.architecture == "jumprelu" else None,
    )
    shape = Shape(source.d_in, one.width, source.d_out, one.skip)
    sae = ARCHITECTURES[one.architecture].init(shape, settings, one.seed, middle, middle_out, source.device)
    scale, scale_out = scales
    assert scale is not None
    y = None if scale_out is None else View(source.rebuilt, scale_out)
    return Trainer(sae, schedule, View(source.read, scale), y)
