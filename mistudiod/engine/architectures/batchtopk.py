"""BatchTopK (Bussmann et al. 2024, arXiv:2412.06410): of a batch of n tokens the k n largest entries are kept.

f = ReLU((x - b_dec) W_enc + b_enc) where it is among the k n largest of the batch, else 0; loss as TopK's. So a token
takes as many latents as it needs, k on average; here never more than 4 k, which bounds the candidates. A single token
has no batch: what is saved is a JumpReLU whose one threshold is calibrated to k latents a token (``engine.calibrate``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.base import Batch, Settings
from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.kernels import Active
from mistudiod.engine.rules import JumpReLURule, Rule

MOST_TIMES_K = 4  # latents that one token may have, as a multiple of k
MEMORY = 0.99  # of the running mean of thresholds, a step


class BatchTopK(TopK):
    name = "batchtopk"

    def __init__(self, params: dict[str, Tensor], settings: Settings) -> None:
        super().__init__(params, settings)
        self._threshold = torch.full((), -1.0, device=params["W_dec"].device)  # negative until the first batch

    def _select(self, batch: Batch) -> Active:
        tokens, k = len(batch.x), self.settings.k
        values, latents = self._strongest(batch, min(MOST_TIMES_K * k, self.d_sae))
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
