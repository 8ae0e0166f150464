"""The trainers of a spec: at the beginning, or as a checkpoint has left them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine import checkpoint
from mistudiod.engine.activations import BLOCK_TOKENS, ActivationBatches
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.base import Settings, Shape
from mistudiod.engine.schedule import Schedule, dead_after_tokens
from mistudiod.engine.train import Training
from mistudiod.engine.trainer import Trainer, View
from mistudiod.specs import Train
from mistudiod.worker.train_source import Source

_SAE = "sae."  # trainer.py
USUAL_L1 = {"standard": 0.1, "gated": 0.3}

log = logging.getLogger(__name__)


def settings(spec: Train, schedule: Schedule) -> Settings:
    return Settings(
        k=spec.k[0],
        dead_after_tokens=dead_after_tokens(schedule.steps, spec.batch_tokens),
        l1=spec.saes()[0].l1 or USUAL_L1.get(spec.architecture[0], 0.0),
        tanh=spec.tanh,
    )


def begin(spec: Train, source: Source, batches: ActivationBatches, schedule: Schedule) -> Training:
    """A new training: x scaled to a mean norm of sqrt(d), biases at the mean. Raises NoActivations."""
    scale, mean = batches.statistics(source.read)
    x, y, mean_out = View(source.read, scale), None, None
    if spec.hook_out:
        scale_out, mean_out = batches.statistics(source.rebuilt)
        y, mean_out = View(source.rebuilt, scale_out), mean_out * scale_out
    trainer = _trainer(spec, source, schedule, x, y, mean * scale, mean_out)
    trainer.sae.prepare(x.of(batches.block()[: spec.batch_tokens]))
    return Training([trainer], batches, source.chosen.micro_tokens)


def resumed(
    folder: Path, made_of: dict[str, Any], spec: Train, source: Source, batches: ActivationBatches, schedule: Schedule
) -> Training | None:
    """The training as the latest checkpoint under ``folder`` has it; None when there is none of this training."""
    found = checkpoint.latest(folder)
    if found is None:
        return None
    about, tensors = _as_now(found.about, found.tensors)
    if _completed(about["made_of"], made_of) != made_of:
        log.warning("checkpoint %d was made of something else: training begins anew", found.step)
        return None
    [(scale, scale_out)] = about["scales"]
    y = View(source.rebuilt, scale_out) if spec.hook_out else None
    trainer = _trainer(spec, source, schedule, View(source.read, scale), y, None, None)
    training = Training([trainer], batches, source.chosen.micro_tokens)
    training.load(tensors, about)
    log.warning("training goes on from step %d", training.step)
    return training


def _trainer(
    spec: Train, source: Source, schedule: Schedule, x: View, y: View | None, mean: Tensor | None, out: Tensor | None
) -> Trainer:
    kind, shape = ARCHITECTURES[spec.architecture[0]], Shape(source.d_in, spec.width[0], source.d_out, spec.skip)
    sae = kind.init(shape, settings(spec, schedule), spec.seed[0], mean, out, torch.device(source.device))
    return Trainer(sae, schedule, x, y)


def _as_now(about: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint of version 0.3 or before, of its one SAE, as one of several has it now."""
    if "scales" in about:
        return about, tensors
    now = {f"0.{_SAE}{name.removeprefix('topk.')}" if name.startswith("topk.") else f"0.{name}": one
           for name, one in tensors.items()}  # fmt: skip
    return {**about, "scales": [[about["scale"], None]]}, now


def _completed(known: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of an older version was made of, in which some things could not be chosen yet."""
    missing = {"buffer_tokens": BLOCK_TOKENS, "precision": usual["precision"], "widths": [known.get("d_in")]}
    now = {**missing, **known, "spec": Train.model_validate(known["spec"]).model_dump()}
    now.pop("d_in", None)
    return now
