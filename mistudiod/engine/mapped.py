"""An array in a file that is mapped, not read: what was looked at can be let go of, so memory stays bounded."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


class Mapped:
    """``array``: what the file holds, one-dimensional, read only."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._map: mmap.mmap | None = None
        if path.stat().st_size:  # a file of nothing cannot be mapped
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.array: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(self._map or b"", dtype)

    def forget(self) -> None:
        """Let go of the memory; the array stays as it is, and is read from the file again where it is looked at."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
