"""The buffer of activations: rows in slots, each waiting for the group it is to be given in. Allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.harvest import Block


class Ring:
    """``rows`` slots of ``width`` bf16 values on ``device``; slots are numbered by int64 tensors on the CPU."""

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self._values = torch.empty(rows, width, dtype=torch.bfloat16, device=device)
        self._where = torch.empty(rows, dtype=torch.int64)
        self.clear()

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def clear(self) -> None:
        """Hold nothing."""
        self._left = len(self._where)
        self._free = torch.arange(self._left - 1, -1, -1)  # a stack, of which the first _left count
        self._waiting: dict[int, list[Tensor]] = {}

    def free(self, n: int) -> Tensor:
        """``n`` slots that nothing is in. They stay free until ``take``."""
        return self._free[self._left - n : self._left].flip(0)

    def take(self, n: int) -> None:
        """The first ``n`` of ``free`` are not free any more."""
        self._left -= n

    def release(self, slots: Tensor) -> None:
        self._free[self._left : self._left + len(slots)] = slots
        self._left += len(slots)

    def write(self, slots: Tensor, block: Block) -> None:
        self._values.index_copy_(0, slots.to(self._values.device), block.values)
        self._where[slots] = block.where

    def wait(self, group: int, slots: Tensor) -> None:
        self._waiting.setdefault(group, []).append(slots)

    def due(self, group: int) -> Tensor:
        """The slots that have waited for ``group``, in the order in which they came."""
        return torch.cat(self._waiting.pop(group, [self._free[:0]]))

    def read(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """The values in ``slots`` (n, width), and where they are from (n,)."""
        return self._values.index_select(0, slots.to(self._values.device)), self._where[slots]
