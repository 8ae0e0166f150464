"""Arrays of a numpy .npz (a zip of .npy files), a stretch of rows at a time and never a pickle.

Before a byte is unpacked the sizes are checked: each array must be as long as its header says, and all of them no more
than EXPANSION times the file, for weights hardly compress: what does is a bomb.
"""

from __future__ import annotations

import ast
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.formats.base import Listing
from mistudiod.engine.scratch import empty, let_go
from mistudiod.engine.tensor_files import spans

EXPANSION = 20
MOST_ARRAYS = 64
_MOST_HEADER_BYTES = 4096
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TYPE = re.compile(r"[<>=|]f[248]")


@dataclass(frozen=True)
class Array:
    """An array in the file."""

    member: str
    type: str  # as numpy writes it, a floating-point number
    fortran: bool
    shape: tuple[int, ...]


class Npz:
    """The arrays of a file in a listing, by lower-case name. Raises ValueError when it is damaged or holds others."""

    def __init__(self, listing: Listing, name: str) -> None:
        self.called = f"{name} of {listing.source}"
        self._open = lambda: zipfile.ZipFile(_Ranged(listing, name))
        with self._whole(), self._open() as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if len(members) > MOST_ARRAYS or unpacked > EXPANSION * listing.size(name):
                raise ValueError(
                    f"{self.called} would unpack into {len(members):,} arrays of {unpacked / 1e9:,.1f} GB, "
                    f"{EXPANSION} times its size or more: no SAE does"
                )
            if any(member.compress_type not in _PACKED for member in members):
                raise ValueError(f"{self.called} is packed in a way that numpy does not use")
            self.arrays = {one.filename.removesuffix(".npy").lower(): self._array(archive, one) for one in members}
            if len(self.arrays) < len(members):
                raise ValueError(f"{self.called} is damaged: it holds two arrays of one name")

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.arrays:
            raise ValueError(
                f"{self.called} has no {name}: it holds {', '.join(sorted(self.arrays))[:300] or 'nothing'}"
            )
        return self.arrays[name].shape

    def take(self, name: str, shape: Sequence[int], device: str | torch.device = "cpu") -> Tensor:
        """An array as float32, contiguous; ValueError when it is of another shape or not all finite."""
        if self.shape(name) != tuple(shape) or 0 in shape:
            raise ValueError(f"{self.called} holds {name} of shape {self.shape(name)}, and {tuple(shape)} is expected")
        array, made = self.arrays[name], empty(shape, device)
        into = made.t() if array.fortran and made.ndim == 2 else made if made.ndim else made.view(1)
        with self._whole(), self._open() as archive, archive.open(array.member) as file:
            _header(file)
            for rows in spans(len(into), into[0].numel() * int(array.type[2])):
                into[rows] = self._block(file, array, (rows.stop - rows.start, *into.shape[1:]))
                let_go(made)
            file.read(1)  # so that the checksum is compared
        return made

    def _block(self, file: IO[bytes], array: Array, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape) * int(array.type[2])
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            n = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not n:
                raise EOFError(f"{array.member} is cut short")
            done += n
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            numbers: NDArray[np.float32] = np.frombuffer(data, array.type).astype(np.float32, copy=False)
        block = torch.from_numpy(numbers).view(shape)
        low, high = block.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(
                f"{self.called} holds a {array.member.removesuffix('.npy')} that is not all finite numbers"
            )
        return block

    def _array(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
        with archive.open(member) as file:
            length, type_, fortran, shape = _header(file)
        size = math.prod(shape) * int(type_[2])
        if member.file_size != length + size:
            raise ValueError(f"{self.called} is damaged: {member.filename} is not as long as its header says")
        return Array(member.filename, type_, fortran, shape)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            struct.error,
            OSError,
        ) as error:
            raise ValueError(f"{self.called} is damaged or cut short: {error}") from None


def _header(file: IO[bytes]) -> tuple[int, str, bool, tuple[int, ...]]:
    """How long the header of a .npy is, and what it says; ValueError for anything but floating-point numbers."""
    begin = file.read(8)
    if len(begin) < 8 or begin[:6] != b"\x93NUMPY":
        raise ValueError("what is in the archive is no numpy array")
    form = "<H" if begin[6] == 1 else "<I"
    (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if length > _MOST_HEADER_BYTES:
        raise ValueError("a numpy array in the archive has a header larger than any real one")
    try:
        said = ast.literal_eval(file.read(length).decode("latin-1").strip())
        type_, fortran, shape = said["descr"], said["fortran_order"], said["shape"]
    except (SyntaxError, ValueError, KeyError, TypeError, RecursionError, MemoryError):
        raise ValueError("a numpy array in the archive has a damaged header") from None
    sizes = isinstance(shape, tuple) and len(shape) < 5 and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
    if not isinstance(type_, str) or not _TYPE.fullmatch(type_) or not sizes:
        raise ValueError(f"a numpy array in the archive is of {str(type_)[:40]} numbers, which cannot be weights")
    return 8 + struct.calcsize(form) + length, type_, bool(fortran), shape


class _Ranged(io.RawIOBase):
    """A file in a listing, of which only what is read is fetched."""

    def __init__(self, listing: Listing, name: str) -> None:
        self._listing, self._name, self._at, self._size = listing, name, 0, listing.size(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, n: int = -1) -> bytes:
        n = self._size - self._at if n < 0 else n
        data = self._listing.read(self._name, self._at, n) if n else b""
        self._at += len(data)
        return data
