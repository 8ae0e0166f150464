"""Windows of tokens → their activations, from the model or from disk, and which of the tokens count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mistudiod.engine.activation_store import ActivationStore

OUTLIER = 10.0  # times the median norm; sinks and what massive activations sit on lie far beyond
MAX_LM_WINDOWS = 256  # in one forward pass, however short they are

Forward = Callable[[Tensor], Tensor]  # token ids (n, T) on the device → activations (n, T, d_in), of hooks side by side
_CPU = torch.device("cpu")


class Windows(Protocol):
    """What is asked of ``tokens.TokenWindows``: rows of ``context`` token ids, and which of them are no text."""

    context: int

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]: ...

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]: ...


class NoActivations(ValueError):
    """No training window has a token to train on, or its activations are not finite."""


class Block(NamedTuple):
    """Text tokens of windows, in order: ``values`` (n, d_in) bf16, and where each is, window x context + position."""

    values: Tensor
    where: Tensor  # (n,) int64, on the CPU


@dataclass
class Harvest:
    """How windows become activations: a forward pass, then tokens that are no text or outliers are left out.

    Special tokens (BOS, separator, padding) carry no text. ``widths`` are those of the hooks, whose activations lie
    side by side; ``outlier_norms`` is one limit for each, in the model's units: a token beyond any of them is left out
    at all of them. ``stores``, one for each hook, keep what was computed; the model runs only for windows that one of
    them lacks. Values are rounded to bf16, or to what the store holds, wherever they come from. ``lm_tokens`` bounds
    the tokens of one forward pass.
    """

    windows: Windows
    forward: Forward
    widths: Sequence[int]
    device: torch.device = _CPU
    lm_tokens: int = 2_048
    outlier_norms: tuple[float, ...] | None = None
    stores: Sequence[ActivationStore] | None = None

    @property
    def d_in(self) -> int:
        return sum(self.widths)

    @property
    def lm_windows(self) -> int:
        """Windows of one forward pass."""
        return max(1, min(MAX_LM_WINDOWS, self.lm_tokens // self.windows.context))

    def columns(self) -> list[slice]:
        """Of each hook."""
        ends = np.cumsum(self.widths).tolist()
        return [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]

    def blocks(self, numbers: NDArray[np.integer]) -> Iterator[Block]:
        """The text tokens of the windows ``numbers``, outliers too: a block for each forward pass.

        What is new in the stores counts only after ``commit``.
        """
        context = self.windows.context
        for start in range(0, len(numbers), self.lm_windows):
            part = np.asarray(numbers[start : start + self.lm_windows], dtype=np.int64)
            rows = self.windows.rows(part)  # (n, T)
            text = torch.from_numpy(np.flatnonzero(~self.windows.special_mask(rows)))
            where = torch.from_numpy(part).repeat_interleave(context)[text] * context + text % context
            yield Block(self._values(part, rows).flatten(0, 1).index_select(0, text.to(self.device)), where)

    def commit(self) -> None:
        """Let windows that were harvested count as kept."""
        for store in self.stores or ():
            store.commit()

    def beyond(self, values: Tensor) -> Tensor:
        """Which of some tokens (n, d_in) are outliers: (n,), on their device."""
        found = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        if self.outlier_norms is not None:
            for columns, limit in zip(self.columns(), self.outlier_norms, strict=True):
                found |= token_norms(values[:, columns]) > limit
        return found

    def batches(self, numbers: NDArray[np.integer]) -> Iterator[Tensor]:
        """Activations of the tokens of the windows ``numbers`` that count, in order: (n, d_in) float32 each."""
        for block in self.blocks(numbers):
            self.commit()
            yield block.values[~self.beyond(block.values)].float()

    def first(self, numbers: NDArray[np.integer], tokens: int) -> Iterator[Tensor]:
        """The same, of at most ``tokens`` tokens in all and without empty batches: for held-out windows."""
        left = tokens
        for x in self.batches(numbers):
            if len(x):
                yield x[:left]
            left -= len(x)
            if left <= 0:
                return

    def _values(self, numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
        """(n, T, d_in) bf16, of windows and their token ids."""
        if not self.stores:
            return self._forward(rows).to(torch.bfloat16)
        there = np.logical_and.reduce([store.has(numbers) for store in self.stores])
        fresh = None if there.all() else self._forward(rows[~there])
        values = torch.empty(*rows.shape, self.d_in, dtype=torch.bfloat16, device=self.device)
        for store, columns in zip(self.stores, self.columns(), strict=True):
            has = store.has(numbers)
            values[_where(has), :, columns] = store.read(numbers[has]).to(self.device)
            if fresh is not None and not has.all():
                lacking = fresh[_where(~has[~there]), :, columns]
                values[_where(~has), :, columns] = store.add(numbers[~has], lacking)
        return values

    def _forward(self, rows: NDArray[np.int64]) -> Tensor:
        return self.forward(torch.from_numpy(rows).to(self.device))


def outlier_norms(x: Tensor, widths: Sequence[int]) -> tuple[float, ...]:
    """Of each hook side by side in x (n, sum of widths) the norm beyond which a token is an outlier."""
    return tuple(OUTLIER * token_norms(columns).median().item() for columns in x.split(list(widths), dim=1))


def token_norms(x: Tensor) -> Tensor:
    """Of tokens x (n, width) in any dtype: (n,) float32."""
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)


def _where(mask: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))
