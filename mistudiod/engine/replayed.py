"""Activations of windows that several SAEs are measured on, one after another: harvested once, where they fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.harvest import Block, Harvest

KEPT_BYTES = 512 << 20  # of activations that stay; of more, the model reads the text again for each SAE


@dataclass
class Replayed(Harvest):
    """A harvest that keeps the blocks of the windows ``again``, bf16, once it has gone through all of them."""

    again: NDArray[np.integer] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _kept: list[Block] | None = field(default=None, init=False)

    def blocks(self, numbers: NDArray[np.integer]) -> Iterator[Block]:
        is_again = np.array_equal(self.again, numbers)
        if is_again and self._kept is not None:
            yield from self._kept
            return
        fits = is_again and 2 * self.d_in * self.windows.context * len(numbers) <= KEPT_BYTES
        came = []
        for block in super().blocks(numbers):
            if fits:
                came.append(block)
            yield block
        if fits:
            self._kept = came
