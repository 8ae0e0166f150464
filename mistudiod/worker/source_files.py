"""The files of a source of text, wherever they lie: opened, unpacked, and read with one sentence for what is wrong."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from mistudiod.worker.link import Refused

FORMATS = (".txt", ".md", ".py", ".jsonl", ".json", ".csv", ".parquet", ".arrow")
PACKED = {".gz": "gzip", ".zst": "zstd"}  # as Arrow names them
IN_WORDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
BLOCK_BYTES = 1 << 20
_UNPACKED_BYTES = 1 << 16  # at a time


@dataclass(frozen=True)
class SourceFile:
    """``size`` is in bytes as it lies there, packed or not. ``path`` is None when it is on another machine."""

    shown: str  # what sentences call it
    name: str  # what its document is called, when it is one
    size: int
    open: Callable[[], BinaryIO]
    path: Path | None = None

    @property
    def packed(self) -> str | None:
        return PACKED.get(PurePosixPath(self.name).suffix.lower())

    @property
    def format(self) -> str | None:
        """One of FORMATS; None when it is of no known one."""
        return format_of(self.name)


def format_of(name: str) -> str | None:
    path = PurePosixPath(name.lower())
    if path.suffix in PACKED:
        path = path.with_suffix("")
    return path.suffix if path.suffix in FORMATS else None


def fault(message: str, field: str = "source") -> Refused:
    """The refusal of a source; bytes of a file's name that are no UTF-8 are shown as '?'."""
    return Refused(message.encode(errors="replace").decode(), field)


@contextmanager
def reading(file: SourceFile) -> Iterator[None]:
    """Turn what goes wrong in reading ``file`` into one sentence."""
    try:
        yield
    except pa.ArrowException as error:
        raise damaged(file, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow's own
            raise damaged(file, error) from error
        raise fault(f"cannot read {file.shown}: {error.strerror}") from error


def damaged(file: SourceFile, error: object) -> Refused:
    kind = PurePosixPath(file.name).suffix if file.packed else str(file.format)
    return fault(f"{file.shown} is no undamaged {kind[1:]} file: {first_line(error)}")


def first_line(error: object) -> str:
    return (str(error).splitlines() or ["unknown error"])[0][:300]


@contextmanager
def opened(file: SourceFile) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """The unpacked bytes from the beginning, and how many bytes of the file itself have been read so far."""
    with reading(file), file.open() as raw:
        if file.packed is None:
            yield raw, raw.tell
        else:
            unpacked = pa.CompressedInputStream(pa.PythonFile(raw, "r"), file.packed)
            with io.BufferedReader(unpacked, _UNPACKED_BYTES) as stream:
                yield stream, raw.tell


# On this machine


def local_files(source: str) -> list[SourceFile]:
    """The files of a path in order; hidden files and unknown formats in a folder are left out. Raises Refused."""
    path = Path(os.path.expanduser(source))
    try:
        mode = _mode(path)
        if mode is None:
            raise fault(f"there is no file or folder {path}; a dataset of the Hub is named as owner/name")
        if not path.is_absolute():
            raise fault(f"{source} is a relative path: give the absolute path")
        if stat.S_ISDIR(mode):
            found = sorted(_walk(path), key=lambda file: file.relative_to(path).parts)
            if not found:
                raise fault(f"the folder {path} has no {IN_WORDS} file")
            return [_local(file, file.relative_to(path)) for file in found]
        if not stat.S_ISREG(mode):
            raise fault(f"{path} is neither a file nor a folder")
        if format_of(path.name) is None:
            raise fault(f"{path} is of no known format: give a {IN_WORDS} file, or a folder of them")
        return [_local(path, Path(path.name))]
    except OSError as error:
        raise fault(f"cannot read {error.filename or path}: {error.strerror}") from error


def is_there(source: str) -> bool:
    """Whether a path of this name exists."""
    return _mode(Path(os.path.expanduser(source))) is not None


def _local(path: Path, name: Path) -> SourceFile:
    shown = os.fsencode(name.as_posix()).decode(errors="replace")
    return SourceFile(str(path), shown, path.stat().st_size, lambda: open(path, "rb"), path)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return None


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if not name.startswith(".") and format_of(name) and path.is_file():
                yield path
