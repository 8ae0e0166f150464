"""SAELens: ``SAETrainer.step`` with its training SAEs at their defaults; ``+autocast`` is its own bf16."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peer import Setup
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

logging.getLogger("sae_lens").setLevel(logging.ERROR)
LR = 3e-4  # its default
KINDS: dict[str, tuple[Any, Any]] = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
}


class Trained:
    def __init__(self, kind: str, autocast: bool, setup: Setup) -> None:
        sae, config = KINDS[kind]
        k = {"k": setup.k} if "topk" in kind else {}
        made = sae(config(d_in=setup.d_in, d_sae=setup.width, dtype="float32", device="cpu", **k))
        how = SAETrainerConfig(
            total_training_samples=setup.steps * setup.batch,
            train_batch_size_samples=setup.batch,
            lr=setup.lr or LR,
            lr_end=0.0,  # asked for, but of no effect on a constant one with a decay
            lr_warm_up_steps=setup.warm_up,
            lr_decay_steps=setup.decay,
            autocast=autocast,
        )
        self.trainer = SAETrainer(how, made, iter(()))

    def step(self, x: Tensor) -> None:
        self.trainer.maybe_reset_sparsity()
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def latents(self, x: Tensor) -> Tensor:
        sae = self.trainer.sae
        if not isinstance(sae, BatchTopKTrainingSAE):
            return sae.encode(x)
        hidden = sae.hook_sae_acts_pre(sae.process_sae_in(x) @ sae.W_enc + sae.b_enc)
        return torch.relu(hidden * sae.W_dec.norm(dim=-1))

    def decode(self, latents: Tensor) -> Tensor:
        return self.trainer.sae.decode(latents)


def make(entry: str, setup: Setup, _: Tensor) -> Trained:
    kind, _, more = entry.partition("+")
    torch.manual_seed(setup.seed)
    return Trained(kind, more == "autocast", setup)
