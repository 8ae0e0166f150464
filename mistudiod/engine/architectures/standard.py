"""Standard (Anthropic 2024, April update; Bricken et al. 2023): f = ReLU((x - b_dec) W_enc + b_enc), made sparse by L1.

loss = FVU of f W_dec + b_dec, plus l1 times the mean over tokens of sum_j f_j ||W_dec[j]|| / s, plus AuxK / 32, where s
is the root of a token's variance, so that l1 means the same on every model; rows of W_dec have norm 1 throughout. l1
grows from 0 over the first twentieth of the training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.dense import DenseSae
from mistudiod.engine.architectures.step import Batch
from mistudiod.engine.rules import ReLURule, Rule

WARM_UP_SHARE = 0.05


class Standard(DenseSae):
    name = "standard"

    def _rule(self) -> Rule:
        return ReLURule()

    def _rebuild_block(self, batch: Batch, block: slice) -> tuple[Tensor, Tensor, Tensor]:
        centred = self._centred(batch.x[block])
        f, b_enc, by_bias = self._product(centred), self.params["b_enc"], self._grads["b_enc"]
        fired, total = self._fired(), torch.zeros_like(b_enc)
        if self._step is not None:
            self._step.call("relu", f, *f.shape, b_enc, fired, total)
        else:
            f.add_(b_enc).relu_()
            fired, total = (f > 0).sum(0), f.sum(0)
        missing = self._missing(batch, block, f)
        lost = missing.square().sum()
        l1 = l1_of(self.settings.l1, batch) / (self._spread(batch) * len(batch.x))
        back = self._back_through_decoder(f, missing * (2 / batch.variance))
        if self._step is not None:
            self._step.call("relu_back", back, f, *f.shape, float(l1), by_bias)
        else:
            by_bias += back.add_(l1).mul_(f > 0).sum(0)
        self._back_through_encoder(back, centred)
        return lost, fired, l1 * total.sum()


def l1_of(l1: float, batch: Batch) -> float:
    """The weight of L1 at this point of the training."""
    return l1 * min(1.0, batch.done / WARM_UP_SHARE)
