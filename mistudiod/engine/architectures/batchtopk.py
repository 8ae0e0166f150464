"""BatchTopK (Bussmann et al. 2024, arXiv:2412.06410): of a batch of n tokens the k n largest entries are kept.

f = ReLU((x - b_dec) W_enc + b_enc) where it is among the k n largest of the batch, else 0; loss as TopK's. So a token
takes as many latents as it needs, k on average; here never more than 4 k, which bounds the candidates. A single token
has no batch: what is saved is a JumpReLU whose one threshold is calibrated to k latents a token (``engine.calibrate``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.base import MOST_TIMES_K
from mistudiod.engine.architectures.step import Batch, Settings
from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.kernels import Active
from mistudiod.engine.rules import JumpReLURule, Rule
from mistudiod.engine.sparse import Inputs

MEMORY = 0.99  # of the running mean of thresholds, a step


class BatchTopK(TopK):
    name = "batchtopk"

    def __init__(self, params: dict[str, Tensor], settings: Settings) -> None:
        super().__init__(params, settings)
        self._threshold = torch.full((), -1.0, device=params["W_dec"].device)  # negative until the first batch

    def _select(self, batch: Batch, inputs: Inputs | None) -> Active:
        tokens, k, most = len(batch.x), self.settings.k, min(MOST_TIMES_K * self.settings.k, self.d_sae)
        if self._step is not None and inputs is not None:
            weights = self.params["W_enc_T"], self.params["b_enc"]
            active = self._step.strongest_of_batch(inputs, *weights, k, most)
            self._remember(active.values.min())
            return active
        values, latents = self._strongest(batch, most)
        # exactly k n of them, so that nothing waits for a GPU to count
        best = values.flatten().topk(k * tokens, sorted=False).indices.sort().values
        kept = values.flatten()[best]
        self._remember(kept.min())
        row = best.div(values.shape[1], rounding_mode="floor")
        starts = torch.searchsorted(row, torch.arange(tokens + 1, device=row.device))
        return Active(kept, latents.flatten()[best], starts)

    def _remember(self, threshold: Tensor) -> None:
        mean = torch.where(self._threshold < 0, threshold, self._threshold.lerp(threshold, 1 - MEMORY))
        self._threshold.copy_(mean)

    def _rule(self) -> Rule:
        return JumpReLURule(self._threshold.clamp_min(0).expand(self.d_sae).clone())

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "threshold": self._threshold}
