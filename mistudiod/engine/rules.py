"""How pre-activations become latents: an autoencoder's rule, in the form in which it is saved and used.

Training may choose latents in other ways (among a whole batch, say); what it leaves behind is one of these four.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class TopKRule:
    """The k largest pre-activations of a token, then ReLU (Gao et al. 2024, arXiv:2406.04093)."""

    name: ClassVar = "topk"
    tensors: ClassVar[tuple[str, ...]] = ()  # fields that are saved beside the weights, each (d_sae,)
    k: int

    def latents(self, pre: Tensor) -> Tensor:
        values, indices = pre.topk(min(self.k, pre.shape[1]), dim=1, sorted=False)
        return torch.zeros_like(pre).scatter_(1, indices, values.relu_())

    def multiplied(self, factor: Tensor) -> TopKRule:
        return self


@dataclass(frozen=True)
class ReLURule:
    """f = ReLU(pre)."""

    name: ClassVar = "standard"
    tensors: ClassVar[tuple[str, ...]] = ()

    def latents(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def multiplied(self, factor: Tensor) -> ReLURule:
        return self


@dataclass(frozen=True)
class JumpReLURule:
    """f = ReLU(pre) where pre > threshold, else 0 (Rajamanoharan et al. 2024, arXiv:2407.14435)."""

    name: ClassVar = "jumprelu"
    tensors: ClassVar[tuple[str, ...]] = ("threshold",)
    threshold: Tensor  # (d_sae,)

    def latents(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def multiplied(self, factor: Tensor) -> JumpReLURule:
        return JumpReLURule(self.threshold * factor)


@dataclass(frozen=True)
class GatedRule:
    """f = ReLU(e^r_mag a + b_mag) where a + b_gate > 0, else 0 (Rajamanoharan et al. 2024, arXiv:2404.16014).

    a is the encoder's product; b_gate is the autoencoder's b_enc, so that pre = a + b_gate.
    """

    name: ClassVar = "gated"
    tensors: ClassVar[tuple[str, ...]] = ("b_gate", "b_mag", "r_mag")
    b_gate: Tensor  # (d_sae,)
    b_mag: Tensor  # (d_sae,)
    r_mag: Tensor  # (d_sae,)

    def latents(self, pre: Tensor) -> Tensor:
        magnitude = torch.addcmul(self.b_mag, pre - self.b_gate, self.r_mag.exp())
        return magnitude.relu_() * (pre > 0)

    def multiplied(self, factor: Tensor) -> GatedRule:
        return GatedRule(self.b_gate * factor, self.b_mag * factor, self.r_mag)


Rule = TopKRule | ReLURule | JumpReLURule | GatedRule
RULES: Mapping[str, type[Rule]] = {rule.name: rule for rule in (TopKRule, ReLURule, JumpReLURule, GatedRule)}
