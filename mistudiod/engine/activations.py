"""Windows of tokens → shuffled batches of activations, in bounded memory and exactly resumable.

Nothing is pooled on disk. Each pass reads the training windows in a seeded order, a block at a time; a block's
activations fill one buffer, its tokens are dealt out in a seeded order. So a position is three numbers (pass, block,
offset in the block), and going on from one costs one block's forward passes and gives the same batches, bit for bit.
What a block has left when it no longer fills a batch is taken first into the next batch: no token is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

BLOCK_TOKENS = 65_536  # shuffled among themselves; the buffer holds block_tokens x d_in float32
_MAX_LM_WINDOWS = 256  # windows in one forward pass, however short they are

Forward = Callable[[Tensor], Tensor]  # token ids (n, T) on the device → activations (n, T, d_in), of hooks side by side


class Windows(Protocol):
    """What is asked of ``tokens.TokenWindows``: rows of ``context`` token ids, and which of them are no text."""

    context: int

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]: ...

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]: ...


class NoActivations(ValueError):
    """No training window has a token to train on, or its activations are not finite."""


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Harvest:
    """How windows become activations: a forward pass, then special tokens (BOS, separator, padding) are left out.

    Their activations are outliers that carry no text. ``lm_tokens`` bounds the tokens of one forward pass.
    """

    windows: Windows
    forward: Forward
    d_in: int
    device: torch.device = _CPU
    lm_tokens: int = 2_048

    def batches(self, numbers: NDArray[np.integer]) -> Iterator[Tensor]:
        """Activations of the kept tokens of the windows ``numbers``, in order: (n, d_in) float32, one per forward."""
        size = max(1, min(_MAX_LM_WINDOWS, self.lm_tokens // self.windows.context))
        for start in range(0, len(numbers), size):
            rows = self.windows.rows(numbers[start : start + size])  # (n, T)
            kept = torch.from_numpy(np.flatnonzero(~self.windows.special_mask(rows))).to(self.device)
            x = self.forward(torch.from_numpy(rows).to(self.device)).flatten(0, 1)  # (n * T, d_in)
            yield x.index_select(0, kept).float()

    def first(self, numbers: NDArray[np.integer], tokens: int) -> Iterator[Tensor]:
        """The same, of at most ``tokens`` tokens in all and without empty batches: for held-out windows."""
        left = tokens
        for x in self.batches(numbers):
            if len(x):
                yield x[:left]
            left -= len(x)
            if left <= 0:
                return


class ActivationBatches:
    """An endless iterator over batches (batch_tokens, d_in) of the first ``train_windows`` windows."""

    def __init__(
        self, harvest: Harvest, train_windows: int, batch_tokens: int, seed: int, block_tokens: int = BLOCK_TOKENS
    ) -> None:
        if train_windows < 1:
            raise NoActivations("there are no training windows")
        windows_a_block = max(1, block_tokens // harvest.windows.context)
        self.harvest, self.batch_tokens, self._seed = harvest, batch_tokens, seed
        self._windows = train_windows
        self._blocks = math.ceil(train_windows / windows_a_block)
        rows = min(train_windows, windows_a_block) * harvest.windows.context
        self._buffer = torch.empty(rows, harvest.d_in, device=harvest.device)
        self._at = (0, 0)  # pass and block that come next
        self._offset = 0  # tokens of it that were already given
        self._held: tuple[int, int] | None = None  # pass and block that the buffer holds
        self._order = torch.empty(0, dtype=torch.int64)  # its tokens, in the order they are given
        self._pass_order: tuple[int, NDArray[np.uint32]] | None = None

    def state(self) -> dict[str, int]:
        """The position, JSON-ready; ``load`` goes on from it."""
        return {"pass": self._at[0], "block": self._at[1], "offset": self._offset}

    def load(self, state: dict[str, int]) -> None:
        self._at, self._offset = (state["pass"], state["block"]), state["offset"]

    def __iter__(self) -> ActivationBatches:
        return self

    def __next__(self) -> Tensor:
        batch = torch.empty(self.batch_tokens, self.harvest.d_in, device=self.harvest.device)
        filled = 0
        while filled < self.batch_tokens:
            self._hold_block()
            take = self._order[self._offset : self._offset + self.batch_tokens - filled]
            torch.index_select(self._buffer, 0, take, out=batch[filled : filled + len(take)])
            filled += len(take)
            self._offset += len(take)
            if self._offset == len(self._order):
                self._at, self._offset = self._after(self._at), 0
        return batch

    def block(self) -> Tensor:
        """Kept tokens of the block that comes next (or is being given), in window order: a view (n, d_in)."""
        self._hold_block()
        return self._buffer[: len(self._order)]

    def statistics(self, columns: slice = slice(None)) -> tuple[float, Tensor]:
        """``(scale, mean)`` of some columns of ``block()``: sqrt(d) / mean‖x‖, and the mean (d,) in float32."""
        x = self.block()[:, columns]
        mean_norm = torch.linalg.vector_norm(x, dim=1).mean(dtype=torch.float64).item()
        if not (math.isfinite(mean_norm) and mean_norm > 0):
            raise NoActivations(f"the activations cannot be used: their mean norm is {mean_norm}")
        return math.sqrt(x.shape[1]) / mean_norm, x.mean(0, dtype=torch.float64).float()

    def _hold_block(self) -> None:
        """Have a block with at least one kept token in the buffer, moving on past empty ones."""
        for _ in range(self._blocks + 1):
            if self._held != self._at:
                self._fill()
            if len(self._order):
                return
            self._at, self._offset = self._after(self._at), 0
        raise NoActivations("the training windows hold special tokens only")

    def _fill(self) -> None:
        pass_, block = self._at
        self._held = None  # the buffer is in between until the block is whole
        first, last = (self._windows * b // self._blocks for b in (block, block + 1))
        filled = 0
        for x in self.harvest.batches(np.sort(self._windows_of(pass_)[first:last])):  # sorted: reads go forward
            self._buffer[filled : filled + len(x)] = x
            filled += len(x)
        order = np.random.default_rng([self._seed, pass_, 1 + block]).permutation(filled)
        self._order = torch.from_numpy(order).to(self._buffer.device)
        self._held = self._at

    def _windows_of(self, pass_: int) -> NDArray[np.uint32]:
        """The order in which a pass reads the windows."""
        if self._pass_order is None or self._pass_order[0] != pass_:
            windows = np.arange(self._windows, dtype=np.uint32)
            np.random.default_rng([self._seed, pass_, 0]).shuffle(windows)
            self._pass_order = (pass_, windows)
        return self._pass_order[1]

    def _after(self, at: tuple[int, int]) -> tuple[int, int]:
        pass_, block = at
        return (pass_, block + 1) if block + 1 < self._blocks else (pass_ + 1, 0)
