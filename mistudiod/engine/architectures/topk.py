"""TopK (Gao et al. 2024, arXiv:2406.04093): f keeps the k largest entries of (x - b_dec) W_enc + b_enc, then ReLU.

loss = FVU of f W_dec + b_dec, plus AuxK / 32. x: (tokens, d_in); W_enc: (d_in, d_sae); f: (tokens, d_sae), of which
only the k entries of a token exist.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.base import TrainingSae
from mistudiod.engine.architectures.step import Batch, Rebuilt, Settings
from mistudiod.engine.kernels import Active, Path, encode_topk, rows_active
from mistudiod.engine.rules import Rule, TopKRule
from mistudiod.engine.sparse import Entries, Inputs, SparseStep, WeightGrads


class TopK(TrainingSae):
    name = "topk"

    def __init__(self, params: dict[str, Tensor], settings: Settings) -> None:
        super().__init__(params, settings)
        self._latest = Active(torch.empty(0), torch.empty(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
        self._squares = torch.zeros(self.d_sae, device=params["W_dec"].device)  # squared norms of a latent's gradients
        self._silent = torch.ones(self.d_sae, dtype=torch.uint8, device=params["W_dec"].device)

    def _rule(self) -> Rule:
        return TopKRule(self.settings.k)

    def _select(self, batch: Batch, inputs: Inputs | None) -> Active:
        """The active latents of every token; ``inputs`` where there is native code."""
        if self._step is not None and inputs is not None:
            return self._step.strongest(inputs, self.params["W_enc_T"], self.params["b_enc"], self.settings.k)
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

    def _rebuild(self, batch: Batch) -> Rebuilt:
        if self._step is not None:
            return self._rebuild_natively(batch, self._step)
        self._latest = active = self._select(batch, None)
        self._note_fired(active)
        loss = batch.x.new_zeros(())
        self._grads["b_dec"].zero_()
        if "W_skip" in self.params:
            self._grads["W_skip"].zero_()
        for part in batch.parts:
            loss += self._rebuild_part(batch, part, active.part(part))
        fvu = torch.linalg.vector_norm(batch.residual).square() / batch.variance
        return Rebuilt(loss / batch.variance, fvu, (active.values > 0).sum() / len(batch.x))

    def _rebuild_natively(self, batch: Batch, step: SparseStep) -> Rebuilt:
        params, x = self.params, batch.x
        inputs = step.inputs(x, params["b_dec"] if self.centred else None)
        self._latest = active = self._select(batch, inputs)
        entries = step.by_latent(active, self.d_sae)
        self.tokens_since_fired.masked_fill_(entries.edges.diff() > 0, 0)
        skip = params.get("W_skip")
        if skip is not None:
            torch.mm(x, skip.t(), out=batch.residual)
        levels = self._levels()
        back = 2 / (len(levels) * float(batch.variance))
        of = active, params["W_dec"], params["b_dec"], batch.y, batch.residual
        fvu = step.decode(*of, add=skip is not None, back=back)
        gradient, squared = self._back_natively(active, entries, inputs, batch.residual, back, step)
        torch.mul(step.column_sums(gradient), back, out=self._grads["b_dec"])
        if skip is not None:
            torch.mm(gradient.t(), x, out=self._grads["W_skip"]).mul_(back)
        l0 = entries.edges[-1] / len(x)
        return Rebuilt((fvu + squared) / len(levels) / batch.variance, fvu / batch.variance, l0)

    def _back_natively(
        self, active: Active, entries: Entries, inputs: Inputs, residual: Tensor, back: float, step: SparseStep
    ) -> tuple[Tensor, float]:
        """Write the gradients of the latents' weights, from the widest level to the narrowest.

        ``back`` times the first that is returned, (tokens, d_out), is the gradient of b_dec on each token; the second
        is the squared error of all levels but the widest. The value gradients of a lone level are those of ``decode``.
        """
        levels, W_dec = self._levels(), self.params["W_dec"]
        weights = (self._grads[name] for name in ("W_enc_T", "b_enc", "W_dec"))
        into = WeightGrads(*weights, self._squares, self._silent)
        if len(levels) == 1:
            step.weight_grads(active, entries, slice(0, self.d_sae), inputs.x, residual, back, W_dec, into)
            return residual, 0.0
        gradient, missing = (self._buffer(name, residual).copy_(residual) for name in ("gradient", "missing"))
        squared = 0.0
        for start, stop in reversed(list(zip([0, *levels], levels, strict=False))):
            before = step.undo_level(active, W_dec, slice(start, stop), gradient, back, missing)
            step.weight_grads(active, entries, slice(start, stop), inputs.x, gradient, back, W_dec, into)
            if start:  # a latent is in its own level and in all wider ones
                gradient += missing
                squared += before
        return gradient, squared

    def _finished(self) -> tuple[Tensor, Tensor | None]:
        if self._step is None:
            return super()._finished()
        of_weights = ("W_enc_T", "b_enc", "W_dec")
        others = [grad.square().sum() for name, grad in self._grads.items() if name not in of_weights]
        return (self._squares.sum() + sum(others)).sqrt(), self._silent

    def _note_written(self, latents: Tensor) -> None:
        if self._step is not None:
            self._silent[latents] = 0
            rows = (self._grads[name][latents].view(len(latents), -1) for name in ("W_enc_T", "b_enc", "W_dec"))
            self._squares[latents] = sum(row.square().sum(1) for row in rows)

    def values_of(self, features: Tensor) -> Tensor:
        active, columns = self._latest, torch.full((self.d_sae,), -1, device=features.device)
        columns[features] = torch.arange(len(features), device=features.device)
        column = columns[active.latents.long()]
        hit = (column >= 0) & (active.values > 0)
        values = active.values.new_zeros(len(active.starts) - 1, len(features))
        values[active.tokens()[hit], column[hit]] = active.values[hit]
        return values

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
