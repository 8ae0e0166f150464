"""miStudio: the real ``Trainer.advance``, with clipping, Adam and renormalisation."""

from __future__ import annotations

from dataclasses import replace

import torch
from peer import Setup
from torch import Tensor

from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.base import Settings, Shape
from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.schedule import Schedule, automatic_lr, dead_after_tokens
from mistudiod.engine.trainer import Trainer, View

L1 = {"standard": 0.2, "gated": 0.3}  # as the train job has it


class Trained:
    def __init__(self, kind: str, setup: Setup, first: Tensor) -> None:
        self.kind = kind
        settings = Settings(setup.k, dead_after_tokens(setup.steps, setup.batch), L1.get(kind, 0.0))
        shape = Shape(setup.d_in, setup.width, setup.d_in)
        sae = ARCHITECTURES[kind].init(shape, settings, setup.seed, first.mean(0))
        sae.prepare(first)
        lr = setup.lr or automatic_lr(setup.width, setup.steps)
        self.trainer = Trainer(sae, Schedule(setup.steps, lr), View(slice(0, setup.d_in), 1.0))
        self.saved = None
        self.at = 0

    def step(self, x: Tensor) -> None:
        self.trainer.advance(self.at, x, None)
        self.at += 1

    def latents(self, x: Tensor) -> Tensor:
        if self.saved is None:
            sae = self.trainer.to_sae({})
            any_ = JumpReLURule(torch.zeros(sae.d_sae))
            self.saved = sae if self.kind == "topk" else replace(sae, rule=any_)
        return self.saved.encode(x)

    def decode(self, latents: Tensor) -> Tensor:
        return self.saved.decode(latents)


def make(entry: str, setup: Setup, first: Tensor) -> Trained:
    return Trained(entry, setup, first)
