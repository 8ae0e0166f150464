"""Where the matrices of an SAE lie while it is brought in: in mapped files that have no name, instead of memory.

What is read is widened to float32 and changed before it is saved: a file of half precision would take twice its size.
Matrices are filled, changed and written a stretch at a time, and what was looked at is let go of.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

_LEAST_BYTES = 1 << 20  # smaller ones stay in memory
_Maps = dict[int, mmap.mmap]  # by where the tensor begins
_active: ContextVar[tuple[Path, _Maps] | None] = ContextVar("scratch", default=None)


@contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """In the block matrices are made in files of ``folder``, which are gone with the last tensor in them."""
    token = _active.set((folder, {}))
    try:
        yield
    finally:
        _active.reset(token)


def empty(shape: Sequence[int], device: str | torch.device) -> Tensor:
    """float32, of any content; in a file within ``scratch``. Raises OSError when the disk is full."""
    size, active = 4 * math.prod(shape), _active.get()
    if active is None or size < _LEAST_BYTES or torch.device(device).type != "cpu":
        return torch.empty(tuple(shape), device=device)
    folder, maps = active
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full later would end the process
        mapped = mmap.mmap(file.fileno(), size)
    made = torch.frombuffer(mapped, dtype=torch.float32).view(tuple(shape))
    maps[made.data_ptr()] = mapped
    return made


def let_go(tensor: Tensor) -> None:
    """Of what lies in a file no more is kept in memory; it is read again where it is looked at."""
    active = _active.get()
    mapped = active[1].get(tensor.untyped_storage().data_ptr()) if active else None
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)
