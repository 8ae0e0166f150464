"""What an SAE costs the language model that it reads: its loss with what the SAE rebuilds in the place of the hook.

Cross-entropy is in nats, the mean over the tokens that count: those that are kept (no special token, no outlier) and
have text, no special token, after them. Kept tokens are replaced, whether they count or not; the others never are.
Beside the SAE stand zeros (zero ablation) and the mean of the kept tokens (mean ablation), which lose all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import LossSums
from mistudiod.engine.harvest import Windows
from mistudiod.engine.hooks import capture, hooked
from mistudiod.engine.lm import LM

PASSES = 4  # through the text for a first loss: the mean, zeros, the mean in its place, what is rebuilt
Rebuild = Callable[[Tensor, Tensor], Tensor]  # x (n, d_in) and y (n, d_out) of kept tokens → what takes y's place


@dataclass(frozen=True)
class Loss:
    """Of the language model with something in the place of what is at a hook, over all counted tokens."""

    clean: float  # cross-entropy in nats, nothing replaced
    spliced: float
    kl: float  # KL(clean || spliced) in nats
    zero: float  # cross-entropy with zeros
    mean: float  # cross-entropy with the mean
    tokens: int  # that counted

    def figures(self) -> dict[str, float | None]:
        """What is told of it, JSON-ready; what is recovered is None where an ablation costs nothing."""
        return {
            "ce_clean": self.clean,
            "ce_delta": self.spliced - self.clean,
            "ce_recovered_zero": _recovered(self.zero, self.spliced, self.clean),
            "ce_recovered_mean": _recovered(self.mean, self.spliced, self.clean),
            "kl": self.kl,
        }


NO_FIGURES: dict[str, float | None] = dict.fromkeys(
    ("ce_clean", "ce_delta", "ce_recovered_zero", "ce_recovered_mean", "kl")
)


@dataclass(frozen=True)
class _Clean:
    """Some windows as the model reads them."""

    ids: Tensor  # (n, T)
    kept: Tensor  # (n, T) bool
    counts: Tensor  # (n, T) bool, the last position never
    values: Mapping[str, Tensor]  # at each hook (n, T, width)
    hidden: Tensor  # (n, T, d_model), what the head reads


@dataclass(frozen=True)
class Units:
    """Which of ``count`` documents each token is of: ``rows`` of windows (n,) are (n, T), as those of ``Windows``."""

    rows: Callable[[NDArray[np.integer]], NDArray[np.int64]]
    count: int


@dataclass(frozen=True)
class _Sums:
    """Over counted tokens, in nats; ``each`` (units, 4): of each document clean, spliced, KL and how many tokens."""

    clean: float
    spliced: float
    kl: float
    tokens: int
    each: NDArray[np.float64]


class Splice:
    """A whole language model on some windows, and what it loses when a hook's values are replaced there.

    ``windows`` and ``numbers`` say which text. ``outlier_norms``: of each of ``hooks``, tokens of a larger norm are
    outliers. ``lm_tokens`` go through the model at once; ``heard`` is told how many, each time, PASSES times for all
    of the text and a loss. ``units``: for losses by document. Raises ValueError when no token counts.
    """

    def __init__(
        self,
        lm: LM,
        windows: Windows,
        numbers: NDArray[np.integer],
        hooks: Sequence[str],
        outlier_norms: Sequence[float] | None = None,
        lm_tokens: int = 2_048,
        units: Units | None = None,
        heard: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self._units, self._heard = units, heard
        self._lm, self._windows, self._numbers, self._hooks = lm, windows, numbers, list(hooks)
        self._norms = dict(zip(hooks, outlier_norms, strict=True)) if outlier_norms else {}
        self._size = max(1, lm_tokens // windows.context)
        self._ablated: dict[str, tuple[_Sums, _Sums]] = {}  # by hook: with zeros, with the mean

    def loss(self, hook: str, rebuild: Rebuild, hook_out: str | None = None) -> Loss:
        """With ``rebuild`` of what is at ``hook`` in the place of what is there, for a transcoder at ``hook_out``."""
        return self.loss_by_document(hook, rebuild, hook_out)[0]

    def loss_by_document(self, hook: str, rebuild: Rebuild, hook_out: str | None = None) -> tuple[Loss, LossSums]:
        """The same, with the sums of each of ``units``."""
        out = hook_out or hook
        if out not in self._ablated:
            self._ablated[out] = self._ablations(out)
        found, (zero, mean) = self._sums(hook, out, rebuild), self._ablated[out]
        clean, spliced, kl = (each / found.tokens for each in (found.clean, found.spliced, found.kl))
        ablated = [each.spliced / each.tokens for each in (zero, mean)]
        sums = LossSums(found.each[:, 3], *found.each.T[:3], zero.each[:, 1], mean.each[:, 1])
        return Loss(clean, spliced, max(kl, 0.0), *ablated, found.tokens), sums

    def _ablations(self, hook: str) -> tuple[_Sums, _Sums]:
        """With zeros and with the mean at ``hook``."""
        total, tokens = torch.zeros((), dtype=torch.float64), 0
        for _, clean in self._clean():
            kept = clean.values[hook][clean.kept]
            total, tokens = total + kept.double().sum(0).cpu(), tokens + len(kept)
        mean = total / max(tokens, 1)
        zero, by_mean = (
            self._sums(hook, hook, lambda x, y, by=replacement: by.to(y).expand_as(y))
            for replacement in (torch.zeros_like(mean), mean)
        )
        return zero, by_mean

    @torch.no_grad()
    def _sums(self, hook: str, out: str, rebuild: Rebuild) -> _Sums:
        sums, tokens = torch.zeros(3, dtype=torch.float64, device=self._lm.device), 0
        each = np.zeros((self._units.count if self._units else 0, 4))
        for numbers, clean in self._clean():
            x, y = clean.values[hook][clean.kept].float(), clean.values[out][clean.kept].float()
            replaced = clean.values[out].clone()
            replaced[clean.kept] = rebuild(x, y).to(replaced.dtype)
            with hooked(self._lm.model, {out: lambda _, by=replaced: by}):
                hidden = self._hidden(clean.ids)
            targets = clean.ids.roll(-1, 1)[clean.counts]
            of_tokens: list[Tensor] | None = [] if self._units else None
            sums += self._compare(clean.hidden[clean.counts], hidden[clean.counts], targets, of_tokens)
            tokens += len(targets)
            if self._units and of_tokens:
                of = self._units.rows(numbers)[clean.counts.cpu().numpy()]
                np.add.at(each, of, torch.cat(of_tokens).cpu().numpy())
        if not tokens:
            raise ValueError("no token of the held-out windows has text after it")
        return _Sums(*sums.tolist(), tokens, each)

    def _clean(self) -> Iterator[tuple[NDArray[np.integer], _Clean]]:
        """Some windows at a time: their numbers, and they."""
        for start in range(0, len(self._numbers), self._size):
            numbers = self._numbers[start : start + self._size]
            rows = self._windows.rows(numbers)
            text = torch.from_numpy(~self._windows.special_mask(rows)).to(self._lm.device)
            ids = torch.from_numpy(rows).to(self._lm.device)
            with capture(self._lm.model, self._hooks) as values:
                hidden = self._hidden(ids)
            kept = text.clone()
            for hook, norm in self._norms.items():
                kept &= torch.linalg.vector_norm(values[hook].float(), dim=-1) <= norm
            counts = torch.zeros_like(kept)
            counts[:, :-1] = kept[:, :-1] & text[:, 1:]
            yield numbers, _Clean(ids, kept, counts, values, hidden)
            self._heard(rows.size)

    @torch.no_grad()
    def _hidden(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self._lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def _compare(
        self, clean: Tensor, spliced: Tensor, targets: Tensor, of_tokens: list[Tensor] | None = None
    ) -> Tensor:
        """Sums of cross-entropy clean and spliced, and of KL, of hidden states (n, d_model): (3,) float64.

        ``of_tokens`` gets those of each token and a 1: (some, 4) at a time.
        """
        sums = torch.zeros(3, dtype=torch.float64, device=targets.device)
        rows = self._lm.logit_rows
        for part in range(0, len(targets), rows):
            one, other = (self._lm.log_probabilities(hidden[part : part + rows]) for hidden in (clean, spliced))
            target = targets[part : part + rows, None]
            apart = one.exp() * (one - other)
            losses = [-each.gather(1, target) for each in (one, other)]
            sums += torch.stack([each.sum(dtype=torch.float64) for each in (*losses, apart)])
            if of_tokens is not None:
                kl = apart.sum(1, keepdim=True, dtype=torch.float64)
                of_tokens.append(torch.cat([*(each.double() for each in losses), kl, torch.ones_like(kl)], 1))
        return sums


def _recovered(ablated: float, spliced: float, clean: float) -> float | None:
    """The share of what an ablation costs that is not lost."""
    return (ablated - spliced) / (ablated - clean) if ablated > clean else None
