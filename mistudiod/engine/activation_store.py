"""Activations on disk: windows are kept as they are harvested, in any order, and read instead of running the model.

``kept_activations`` says what lies in the folder. A record is written to its place, then flushed, and only then is the
window's bit set, by replacing the file of bits as a whole: a crash loses the latest windows, and no bit is set for
what is not there. A full disk is an error of a write, not a signal, because nothing is written through a mapping.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod import __version__
from mistudiod.kept_activations import BITS, LOCK, MANIFEST, VALUES, Kept, read_bits

log = logging.getLogger(__name__)
RequireSpace = Callable[[Path, int], None]  # (folder, bytes): raises OSError when they are not free


class ActivationStore:
    """Activations (windows, context, width) in ``folder``; makes the folder when there is none.

    One process writes. Another one at the same time reads what was there when it began, and keeps nothing. What is
    damaged or of something else is begun anew. Raises OSError when the disk is full; the windows that were committed
    stay. Use it as a context manager, or ``close`` it.
    """

    def __init__(self, folder: Path, kept: Kept, require_space: RequireSpace | None = None) -> None:
        self.kept, self._folder, self._require_space = kept, folder, require_space
        self._pending: list[NDArray[np.int64]] = []
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            lock = _open(folder / LOCK, os.O_RDWR | os.O_CREAT, opened)
            self.writable = _locked(lock)
            bits = read_bits(folder, kept)
            if bits is None and self.writable:
                bits = self._begin()
            if not self.writable:
                log.warning("another training writes %s: what this one computes is not kept", folder)
            self._file = -1 if bits is None else _open(folder / VALUES, os.O_RDWR, opened)
            packed = np.frombuffer(bits or bytes((kept.windows + 7) // 8), dtype=np.uint8)
            self._there = np.unpackbits(packed, count=kept.windows, bitorder="little").astype(bool)
            self._opened = opened.pop_all()

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; what was not committed is forgotten."""
        self._opened.close()

    @property
    def windows_there(self) -> int:
        return int(self._there.sum())

    def has(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of the windows ``numbers`` can be read."""
        found: NDArray[np.bool_] = self._there[numbers]
        return found

    def read(self, numbers: NDArray[np.integer]) -> Tensor:
        """Windows that are there: (n, context, width) bf16, on the CPU."""
        records = torch.empty(len(numbers), self.kept.window_bytes, dtype=torch.uint8)
        for number, record in zip(numbers.tolist(), records.numpy(), strict=True):
            if os.preadv(self._file, [record], number * len(record)) != len(record):
                raise OSError(errno.EIO, "is shorter than it was: another program has cut it", self._path)
        return _decoded(records, self.kept)

    def add(self, numbers: NDArray[np.integer], x: Tensor) -> Tensor:
        """Write windows x (n, context, width); returns them as ``read`` will, bf16, on x's device.

        They are there for ``has`` once they are committed. Raises OSError when the disk is full.
        """
        records = _encoded(x, self.kept)
        if self.writable:
            self._write(numbers, records.cpu().numpy())
        return _decoded(records, self.kept)

    def commit(self) -> None:
        """Let all that was added be there, for this process and, even after a crash, for later ones."""
        if not self._pending:
            return
        os.fdatasync(self._file)
        there = self._there.copy()
        there[np.concatenate(self._pending)] = True
        self._write_bits(np.packbits(there, bitorder="little").tobytes())
        self._there, self._pending = there, []

    @property
    def _path(self) -> str:
        return str(self._folder / VALUES)

    def _write(self, numbers: NDArray[np.integer], records: NDArray[np.uint8]) -> None:
        if self._require_space:
            self._require_space(self._folder, records.nbytes)
        for number, record in zip(numbers.tolist(), records, strict=True):
            left, at = memoryview(record), number * len(record)
            while left:
                written = os.pwrite(self._file, left, at)
                left, at = left[written:], at + written
        self._pending.append(np.asarray(numbers, dtype=np.int64))

    def _begin(self) -> bytes:
        """Empty files in place of whatever there is; the bits go first and come last."""
        if any((self._folder / name).exists() for name in (MANIFEST, BITS, VALUES)):
            log.warning("what is in %s is damaged or of something else: it is made anew", self._folder)
        for name in (BITS, MANIFEST, VALUES):
            (self._folder / name).unlink(missing_ok=True)
        with (self._folder / VALUES).open("wb") as file:
            file.truncate(self.kept.bytes)  # a sparse file: takes no space yet
        about = {"belongs_to": self.kept.belongs_to, "bytes": self.kept.bytes, "made_by": f"miStudio {__version__}"}
        _replace(self._folder / MANIFEST, json.dumps(about, indent=1).encode())
        bits = bytes((self.kept.windows + 7) // 8)
        self._write_bits(bits)
        return bits

    def _write_bits(self, bits: bytes) -> None:
        _replace(self._folder / BITS, bits)


def _encoded(x: Tensor, kept: Kept) -> Tensor:
    """Records (n, window_bytes) uint8 of x (n, context, width)."""
    if kept.form == "bf16":
        return x.to(torch.bfloat16).contiguous().view(torch.uint8).flatten(1)
    x = x.float()
    scale = x.abs().amax(2, keepdim=True) / 127  # (n, context, 1)
    values = (x / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().to(torch.int8)
    return torch.cat([values.view(torch.uint8).flatten(1), scale.contiguous().view(torch.uint8).flatten(1)], dim=1)


def _decoded(records: Tensor, kept: Kept) -> Tensor:
    shape = (len(records), kept.context, kept.width)
    if kept.form == "bf16":
        return records.view(torch.bfloat16).view(shape)
    cut = kept.context * kept.width
    scale = records[:, cut:].contiguous().view(torch.float32)[:, :, None]
    return (records[:, :cut].view(torch.int8).view(shape) * scale).to(torch.bfloat16)


def _locked(lock: int) -> bool:
    """Whether this process is the one that writes; the lock ends with it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, flags: int, opened: contextlib.ExitStack) -> int:
    file = os.open(path, flags | os.O_CLOEXEC, 0o644)
    opened.callback(os.close, file)
    return file


def _replace(path: Path, content: bytes) -> None:
    """``path`` holds this content, or what it held before, whatever happens meanwhile."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
