"""Windows of tokens → shuffled batches of activations, in bounded memory and exactly resumable.

Nothing is pooled on disk. Each pass reads the training windows in a seeded order, a block at a time; a block's
activations fill one buffer, its tokens are dealt out in a seeded order. So a position is three numbers (pass, block,
offset in the block), and going on from one costs one block's forward passes and gives the same batches, bit for bit.
What a block has left when it no longer fills a batch is taken first into the next batch: no token is dropped.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.harvest import Harvest, NoActivations

BLOCK_TOKENS = 65_536  # shuffled among themselves; the buffer holds block_tokens x d_in float32


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

    def sample(self) -> Tensor:
        """Kept tokens of the block that comes next (or is being given), in window order: a view (n, d_in)."""
        self._hold_block()
        return self._buffer[: len(self._order)]

    @property
    def outliers(self) -> float:
        """The share of outliers among the text tokens harvested so far."""
        return 0.0

    def leave_out(self, outlier_norms: tuple[float, ...] | None) -> None:
        """From now on outliers do not count, here and wherever ``harvest`` is used; the position stays."""
        self.harvest.outlier_norms, self._held = outlier_norms, None

    def statistics(self, columns: slice = slice(None)) -> tuple[float, Tensor]:
        """``(scale, mean)`` of some columns of ``sample()``: sqrt(d) / mean‖x‖, and the mean (d,) in float32."""
        x = self.sample()[:, columns].contiguous()  # sums over rows that lie apart would round otherwise
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
