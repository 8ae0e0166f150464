"""Gated (Rajamanoharan et al. 2024, arXiv:2404.16014): one encoder says whether a latent fires, scaled, how strongly.

a = (x - b_dec) W_enc; pi = a + b_enc; f = [pi > 0] ReLU(e^r_mag a + b_mag).
loss = FVU of f W_dec + b_dec, plus l1 times the mean over tokens of sum_j ReLU(pi_j) / s (s as for ``standard``), plus
the FVU of ReLU(pi) W_dec + b_dec with W_dec and b_dec held fixed, which is what teaches the gate, plus AuxK / 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.dense import DenseSae
from mistudiod.engine.architectures.standard import l1_of
from mistudiod.engine.architectures.step import Batch, Shape
from mistudiod.engine.rules import GatedRule, Rule


class Gated(DenseSae):
    name = "gated"

    @classmethod
    def _first_params(
        cls, shape: Shape, generator: torch.Generator, mean: Tensor, mean_out: Tensor | None
    ) -> dict[str, Tensor]:
        params = super()._first_params(shape, generator, mean, mean_out)
        return params | {"b_mag": torch.zeros(shape.d_sae), "r_mag": torch.zeros(shape.d_sae)}

    def _rule(self) -> Rule:
        params = self.params
        return GatedRule(params["b_enc"].clone(), params["b_mag"].clone(), params["r_mag"].clone())

    def _encoder_gradient(self) -> Tensor:
        return torch.addcmul(self._grads["b_enc"], self._grads["b_mag"], self.params["r_mag"].exp())

    def _rebuild_block(self, batch: Batch, block: slice) -> tuple[Tensor, Tensor, Tensor]:
        params, grads = self.params, self._grads
        centred = self._centred(batch.x[block])
        a = self._product(centred)  # (block, d_sae)
        scale, fired, total = params["r_mag"].exp(), self._fired(), torch.zeros_like(params["b_enc"])
        if self._step is not None:
            gate, f = self._block("gate", centred), self._block("latents", centred)
            biases = params["b_enc"], scale, params["b_mag"]
            self._step.call("gates", a, gate, f, *a.shape, *biases, fired, total)
        else:
            gate = (a + params["b_enc"]).relu_()
            f = torch.addcmul(params["b_mag"], a, scale).relu_().mul_(gate > 0)
            fired, total = (f > 0).sum(0), gate.sum(0)
        l1 = l1_of(self.settings.l1, batch) / (self._spread(batch) * len(batch.x))
        wrong = torch.addmm(params["b_dec"], gate, params["W_dec"]).sub_(batch.y[block])
        extra = wrong.square().sum() / batch.variance + l1 * total.sum()
        gate_back = torch.mm(wrong.mul_(2 / batch.variance), params["W_dec"].t(), out=self._block("gate_back", a))
        missing = self._missing(batch, block, f)
        lost = missing.square().sum()
        back = self._back_through_decoder(f, missing * (2 / batch.variance))
        sums = grads["b_enc"], grads["b_mag"], grads["r_mag"]
        if self._step is not None:
            self._step.call("gates_back", back, gate_back, a, gate, f, *a.shape, float(l1), scale, *sums)
        else:
            _back_through_gates(back, gate_back.add_(l1).mul_(gate > 0), a, f, scale, *sums)
        self._back_through_encoder(back, centred)
        return lost, fired, extra


def _back_through_gates(
    back: Tensor, gate_back: Tensor, a: Tensor, f: Tensor, scale: Tensor, b_enc: Tensor, b_mag: Tensor, r_mag: Tensor
) -> None:
    """The gradient of a, in place of f's, from those of f and of the gate; the last three are added to."""
    b_enc += gate_back.sum(0)
    b_mag += back.mul_(f > 0).sum(0)
    r_mag += (back.mul_(scale) * a).sum(0)
    back += gate_back
