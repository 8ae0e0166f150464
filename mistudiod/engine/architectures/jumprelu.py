"""JumpReLU (Rajamanoharan et al. 2024, arXiv:2407.14435): f = z where z > threshold, else 0.

z = (x - b_dec) W_enc + b_enc; loss = FVU of f W_dec + b_dec, plus one of two that make it sparse, plus AuxK / 32.

The threshold of each latent is learned through a window of width w around it, K = [|z - threshold| < w / 2] / w:
d f / d threshold = -threshold K, d [z > threshold] / d threshold = -K. Two losses make it sparse:
  aiming (Gemma Scope 2's quadratic form): (L0 / k - 1)^2, L0 the batch's mean; nothing to tune.
  tanh (Anthropic 2025, January update): ``tanh`` times the mean over tokens of sum_j tanh(4 f_j); its weight grows over
  the whole training, and z learns through the window too.
Thresholds are float32 numbers, not logarithms, never below 0, and begin where k latents fire: learned from far away
they would not arrive in a short training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.dense import DenseSae
from mistudiod.engine.architectures.step import Batch, Shape
from mistudiod.engine.kernels import block_elements
from mistudiod.engine.rules import JumpReLURule, Rule

WINDOW = 0.5  # of the threshold's learning, where x has norm sqrt(d_in)
AIM = 1.0  # weight of the aiming loss
STEEPNESS = 4.0


class JumpReLU(DenseSae):
    name = "jumprelu"

    @classmethod
    def _first_params(
        cls, shape: Shape, generator: torch.Generator, mean: Tensor, mean_out: Tensor | None
    ) -> dict[str, Tensor]:
        return super()._first_params(shape, generator, mean, mean_out) | {"threshold": torch.zeros(shape.d_sae)}

    def prepare(self, x: Tensor) -> None:
        rows = min(len(x), max(1, block_elements(self.d_sae, x.device) // self.d_sae))
        z = self._product(self._centred(x[:rows])).add_(self.params["b_enc"])
        best = z.topk(min(self.settings.k + 1, self.d_sae), dim=1, sorted=False).values
        self.params["threshold"].fill_(best.amin(1).mean().clamp_min(0))

    def after_step(self, rows_are_unit: bool = False) -> None:
        super().after_step(rows_are_unit)
        self.params["threshold"].clamp_min_(0)

    def _rule(self) -> Rule:
        return JumpReLURule(self.params["threshold"].clone())

    def _rebuild_block(self, batch: Batch, block: slice) -> tuple[Tensor, Tensor, Tensor]:
        grads, threshold = self._grads, self.params["threshold"]
        centred = self._centred(batch.x[block])
        z, f = self._product(centred), self._block("latents", centred)
        fired = self._fired()
        if self._step is not None:
            self._step.call("jump", z, f, *z.shape, self.params["b_enc"], threshold, fired)
        else:
            z.add_(self.params["b_enc"])
            fires = z > threshold
            fired = fires.sum(0)
            torch.mul(z, fires, out=f)
        missing = self._missing(batch, block, f)
        lost, extra = missing.square().sum(), missing.new_zeros(())
        back = self._back_through_decoder(f, missing * (2 / batch.variance))
        in_window, counts = torch.zeros_like(threshold), torch.zeros_like(threshold)
        if self._step is not None and self.settings.tanh is None:
            sums = grads["b_enc"], in_window, counts
            self._step.call("jump_back", back, z, *z.shape, threshold, WINDOW, *sums)
            in_window, counts = in_window / WINDOW, counts / WINDOW
        else:
            fires = z > threshold
            window = ((z - threshold).abs_() < WINDOW / 2).float().div_(WINDOW)
            through = fires.float()
            if self.settings.tanh is not None:
                weight = self.settings.tanh * batch.done / len(batch.x)
                bent = torch.tanh(f.mul_(STEEPNESS))
                extra = weight * bent.sum()
                back.add_(1 - bent.square(), alpha=weight * STEEPNESS)
                through.addcmul_(window, threshold)
            in_window, counts = (back * window).sum(0), window.sum(0)
            grads["b_enc"] += back.mul_(through).sum(0)
        windows = self._buffer("windows", threshold)
        torch.add(windows, counts, out=windows) if block.start else windows.copy_(counts)
        grads["threshold"] -= in_window.mul_(threshold)
        self._back_through_encoder(back, centred)
        return lost, fired, extra

    def _add_after(self, batch: Batch, l0: Tensor) -> Tensor:
        if self.settings.tanh is not None:
            return l0.new_zeros(())
        over = l0 / self.settings.k - 1
        by_l0 = 2 * AIM * over / self.settings.k
        self._grads["threshold"] -= self._buffer("windows", self.params["threshold"]) * (by_l0 / len(batch.x))
        return AIM * over.square()
