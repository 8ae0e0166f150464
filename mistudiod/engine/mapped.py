"""Arrays in files that are larger than memory should be: mapped, or read a stretch at a time."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Mapped:
    """``array``: what the file holds, one-dimensional, read only; what was looked at can be let go of."""

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


class Stretches:
    """For a few numbers here and there: where they are mapped, a kernel may map megabytes around each."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def read(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
        """lengths[0] numbers from the starts[0]-th on, lengths[1] from the starts[1]-th on, …"""
        size = self._dtype.itemsize
        where = zip((starts * size).tolist(), (lengths * size).tolist(), strict=True)
        return np.frombuffer(b"".join([os.pread(self._file, count, start) for start, count in where]), self._dtype)
