"""TopK (Gao et al. 2024, arXiv:2406.04093): f keeps the k largest entries of (x - b_dec) W_enc + b_enc, then ReLU.

loss = FVU of f W_dec + b_dec, plus AuxK / 32. x: (tokens, d_in); W_enc: (d_in, d_sae); f: (tokens, d_sae), of which
only the k entries of a token exist.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.base import Batch, Path, TrainingSae
from mistudiod.engine.kernels import Active, encode_topk, rows_active
from mistudiod.engine.rules import Rule, TopKRule


class TopK(TrainingSae):
    name = "topk"

    def _rule(self) -> Rule:
        return TopKRule(self.settings.k)

    def _select(self, batch: Batch) -> Active:
        """The active latents of every token."""
        return rows_active(*self._strongest(batch, self.settings.k))

    def _levels(self) -> list[int]:
        """The widths at which the latents up to there must rebuild y on their own."""
        return [self.d_sae]

    def _strongest(self, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """The k largest pre-activations of each token after ReLU, and their latents: (tokens, k) both."""
        W_enc, b_enc = self.params["W_enc_T"].t(), self.params["b_enc"]
        found = [
            encode_topk(self._centred(batch.x[part]), W_enc, b_enc, None, k, buffer=self._dense(batch.x))
            for part in batch.parts
        ]
        return found[0] if len(found) == 1 else tuple(torch.cat(one) for one in zip(*found, strict=True))  # type: ignore[return-value]

    def _rebuild(self, batch: Batch) -> tuple[Tensor, Tensor]:
        active = self._select(batch)
        self._note_fired(active)
        loss = batch.x.new_zeros(())
        self._grads["b_dec"].zero_()
        if "W_skip" in self.params:
            self._grads["W_skip"].zero_()
        for part in batch.parts:
            loss += self._rebuild_part(batch, part, active.part(part))
        return loss / batch.variance, (active.values > 0).sum() / len(batch.x)

    def _rebuild_part(self, batch: Batch, part: slice, active: Active) -> Tensor:
        """Returns the mean over levels of sum ||y - y_hat||^2 of the tokens ``part``, ()."""
        params, grads = self.params, self._grads
        levels = self._levels()
        x, y, add = batch.x[part], batch.y[part], part.start > 0
        centred = self._centred(x)
        spans = [slice(first, last) for first, last in zip([0, *levels], levels, strict=False)]
        paths = [Path(_within(active, span, self.d_sae), params["W_dec"][span]) for span in spans]
        rebuilt = params["b_dec"] + (x @ params["W_skip"].t() if "W_skip" in params else 0)
        squared, missing = x.new_zeros(()), []
        for path in paths:
            rebuilt = rebuilt + path.sums.detach()
            missing.append(rebuilt - y)
            squared += torch.linalg.vector_norm(missing[-1]).square()
        batch.residual[part] = missing[-1]
        gradient = torch.zeros_like(y)
        for path, span, wrong in zip(reversed(paths), reversed(spans), reversed(missing), strict=True):
            gradient.add_(wrong.mul_(2 / (len(levels) * batch.variance)))  # of this level and all wider ones
            path.backward(gradient, centred, *(grads[name][span] for name in ("W_enc_T", "b_enc", "W_dec")), add=add)
        grads["b_dec"] += gradient.sum(0)
        if "W_skip" in params:
            grads["W_skip"].addmm_(gradient.t(), x)
        return squared / len(levels)

    def _note_fired(self, active: Active) -> None:
        silent = torch.where(active.values > 0, 0, torch.iinfo(torch.int64).max)
        self.tokens_since_fired.scatter_reduce_(0, active.latents, silent, "amin")


def _within(active: Active, span: slice, d_sae: int) -> Active:
    """The entries whose latents are in ``span``, counted from its beginning."""
    if span.start == 0 and span.stop == d_sae:
        return active
    kept = (active.latents >= span.start) & (active.latents < span.stop)
    before = torch.nn.functional.pad(kept.cumsum(0), (1, 0))  # how many were kept before each entry
    return Active(active.values[kept], active.latents[kept] - span.start, before[active.starts])
