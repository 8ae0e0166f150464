"""What readers of layouts that lie in pickles (.pt, .pth) work with: what is in one, told without unpickling it.

A reader looks at the opcodes, which name every tensor and its shape; it reads what ``pickles.convert`` made of the
file.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mistudiod.engine.formats.base import Listing
from mistudiod.engine.tensor_files import TensorFile

SUFFIXES = (".pt", ".pth")
_MAX_OPCODES_BYTES = 4 << 20  # of a real state dict they are a few KB
_MAX_READ_BYTES = 16 << 20  # of one file, to look into it
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, struct.error)
_LEGACY_PICKLES = 4  # before its data, an old file of torch has a magic number, a version, a system, and the object


@dataclass(frozen=True)
class Pickled:
    """A converted pickle: its tensors by their path in it (``ae.encoder.weight``), and its single values."""

    tensors: TensorFile
    values: dict[str, object]

    @property
    def called(self) -> str:
        return self.tensors.called

    def number(self, name: str) -> float | None:
        """A single number, or None when there is none of that name."""
        value = self.values.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def weights_of(listing: Listing, name: str) -> Pickled:
    """Of a listing whose pickles are converted; ValueError when they are not, or the file is damaged."""
    path = listing.path(name)
    if path.suffix in SUFFIXES:
        raise ValueError(
            f"{name} is a pickle, a file that can hold more than numbers: it is read when pickles are allowed"
        )
    return Pickled(TensorFile(path, name), json.loads(path.with_suffix(".json").read_text()))


def shapes_in(listing: Listing, name: str) -> dict[str, tuple[int, ...]]:
    """Tensors of a pickle of torch by the key each stands behind, and their shapes; empty when it is no such file."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        for opcodes in _pickles(listing, name):
            found |= _shapes(opcodes)
    except (ValueError, LookupError, ArithmeticError, OSError, EOFError, RuntimeError, *_ZIP_ERRORS):
        return {}  # what it is, torch will say when it is to be read
    return found


def _pickles(listing: Listing, name: str) -> Iterator[bytes]:
    if listing.read(name, 0, 2) == b"PK":
        with zipfile.ZipFile(io.BufferedReader(_Ranges(listing, name), 1 << 16)) as archive:
            inside = next(one for one in archive.namelist() if one.split("/")[-1] == "data.pkl")
            with archive.open(inside) as file:
                yield file.read(_MAX_OPCODES_BYTES)
        return
    file = io.BytesIO(listing.read(name, 0, _MAX_OPCODES_BYTES))
    for _ in range(_LEGACY_PICKLES):
        start = file.tell()
        for _opcode in pickletools.genops(file):
            pass
        yield file.getvalue()[start : file.tell()]


def _shapes(opcodes: bytes) -> dict[str, tuple[int, ...]]:
    """A tensor is its key, a persistent id that names a storage, then its offset and its shape."""
    found: dict[str, tuple[int, ...]] = {}
    texts: list[str] = []  # since the last tensor
    numbers: list[int] | None = None  # since the persistent id
    for opcode, value, _ in pickletools.genops(opcodes):
        if "UNICODE" in opcode.name:
            texts.append(str(value))
        elif opcode.name == "BINPERSID":
            numbers = []
        elif numbers is not None and isinstance(value, int) and "INT" in opcode.name:
            numbers.append(value)
        elif numbers is not None and "TUPLE" in opcode.name:
            if key := _key(texts):
                found[key] = tuple(numbers[1:])
            texts, numbers = [], None
    return found


def _key(texts: list[str]) -> str | None:
    """The text before the storage, which is ``storage``, a number and a device, or less when those were said before."""
    storage = next((i for i in reversed(range(len(texts))) if texts[i].isdigit()), 0)
    return next((text for text in reversed(texts[:storage]) if text != "storage"), None)


class _Ranges(io.RawIOBase):
    """A file of a listing, read where it is looked at."""

    def __init__(self, listing: Listing, name: str) -> None:
        self._listing, self._name, self._at, self._left = listing, name, 0, _MAX_READ_BYTES
        self._size = listing.size(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        data = self._listing.read(self._name, self._at, len(into))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"{self._name} has a table of contents larger than any real one")
        into[: len(data)] = data
        self._at += len(data)
        return len(data)
