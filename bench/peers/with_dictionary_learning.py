"""dictionary_learning: ``Trainer.update`` of its trainers at their defaults."""

from __future__ import annotations

from typing import Any

from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from peer import Setup
from torch import Tensor

KINDS: dict[str, Any] = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer, "standard": StandardTrainer}


class Trained:
    def __init__(self, kind: str, setup: Setup) -> None:
        given: dict[str, Any] = {"k": setup.k} if "topk" in kind else {"sparsity_warmup_steps": setup.warm_up}
        if setup.lr:
            given["lr"] = setup.lr
        self.kind, self.at = kind, 0
        self.trainer = KINDS[kind](
            steps=setup.steps,
            activation_dim=setup.d_in,
            dict_size=setup.width,
            layer=0,
            lm_name="none",
            warmup_steps=setup.warm_up,
            decay_start=setup.steps - setup.decay,
            seed=setup.seed,
            device="cpu",
            **given,
        )

    def step(self, x: Tensor) -> None:
        self.trainer.update(self.at, x)
        self.at += 1

    def latents(self, x: Tensor) -> Tensor:
        ae = self.trainer.ae
        return (ae.encoder(x - ae.b_dec)).relu() if self.kind == "batchtopk" else ae.encode(x)

    def decode(self, latents: Tensor) -> Tensor:
        return self.trainer.ae.decode(latents)


def make(entry: str, setup: Setup, _: Tensor) -> Trained:
    return Trained(entry, setup)
