"""How windows of tokens become activations: a forward pass, and which tokens of it count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_MAX_LM_WINDOWS = 256  # windows in one forward pass, however short they are
OUTLIER = 10.0  # times the median norm

Forward = Callable[[Tensor], Tensor]  # token ids (n, T) on the device → activations (n, T, d_in), of hooks side by side


class Windows(Protocol):
    """What is asked of ``tokens.TokenWindows``: rows of ``context`` token ids, and which of them are no text."""

    context: int

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]: ...

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]: ...


class NoActivations(ValueError):
    """No training window has a token to train on, or its activations are not finite."""


_CPU = torch.device("cpu")


@dataclass
class Harvest:
    """How windows become activations: a forward pass, then special tokens (BOS, separator, padding) are left out.

    Their activations are outliers that carry no text. ``lm_tokens`` bounds the tokens of one forward pass.
    """

    windows: Windows
    forward: Forward
    widths: Sequence[int]  # of the hooks side by side
    device: torch.device = _CPU
    lm_tokens: int = 2_048
    outlier_norms: tuple[float, ...] | None = None  # of each hook; tokens beyond any of them are left out

    @property
    def d_in(self) -> int:
        return sum(self.widths)

    def beyond(self, values: Tensor) -> Tensor:
        """Which of some tokens (n, d_in) are outliers: (n,), on their device."""
        found = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        for columns, limit in zip(values.split(list(self.widths), dim=1), self.outlier_norms or (), strict=False):
            found |= torch.linalg.vector_norm(columns, dim=1) > limit
        return found

    def batches(self, numbers: NDArray[np.integer]) -> Iterator[Tensor]:
        """Activations of the kept tokens of the windows ``numbers``, in order: (n, d_in) float32, one per forward."""
        size = max(1, min(_MAX_LM_WINDOWS, self.lm_tokens // self.windows.context))
        for start in range(0, len(numbers), size):
            rows = self.windows.rows(numbers[start : start + size])  # (n, T)
            kept = torch.from_numpy(np.flatnonzero(~self.windows.special_mask(rows))).to(self.device)
            x = self.forward(torch.from_numpy(rows).to(self.device)).flatten(0, 1)  # (n * T, d_in)
            x = x.index_select(0, kept).float()
            yield x if self.outlier_norms is None else x[~self.beyond(x)]

    def first(self, numbers: NDArray[np.integer], tokens: int) -> Iterator[Tensor]:
        """The same, of at most ``tokens`` tokens in all and without empty batches: for held-out windows."""
        left = tokens
        for x in self.batches(numbers):
            if len(x):
                yield x[:left]
            left -= len(x)
            if left <= 0:
                return


def outlier_norms(x: Tensor, widths: Sequence[int]) -> tuple[float, ...]:
    """Of each hook side by side in x (n, sum of widths) the norm beyond which a token is an outlier."""
    columns = x.split(list(widths), dim=1)
    return tuple(OUTLIER * torch.linalg.vector_norm(one, dim=1).median().item() for one in columns)
