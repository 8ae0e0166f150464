"""Where text comes from: the built-in corpus, a file, or all files of a folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mistudiod.demo import corpus
from mistudiod.worker.text_formats import OPENERS, Row, fault, reading

_COLUMNS: tuple[str, ...] = ("text", "name", "held_out", "continues")
_FORMATS = ".txt, .md, .py, .jsonl or .parquet"
_HUB_ID = re.compile(r"(hf://|https?://huggingface\.co/)\S+|(datasets/)?\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """``columns`` are those that ``rows`` give a meaning: text, and perhaps name, held_out and continues."""

    columns: list[str]
    total_bytes: int
    rows: Iterator[Row]


def open_source(source: str, text_column: str) -> Source:
    """Look at every file of the source, so that most of what can be wrong is found before anything is written.

    Raises Refused, here and while ``rows`` are read.
    """
    if source.startswith("builtin:"):
        return _builtin(source)
    files = [OPENERS[path.suffix.lower()](path, name, text_column) for path, name in _find(source)]
    found: set[str] = set().union(*(file.columns for file in files))
    columns = [column for column in _COLUMNS if column in found]
    total_bytes = sum(file.total_bytes for file in files)
    return Source(columns, total_bytes, chain.from_iterable(file.rows() for file in files))


def _builtin(source: str) -> Source:
    if source != "builtin:python":
        raise fault(f"there is no built-in dataset {source!r}: the only one is 'builtin:python'")
    rows = [Row(d.text, d.name, d.held_out, False, len(d.text.encode())) for d in corpus.documents()]
    return Source(["text", "name", "held_out"], int(sum(row.source_bytes for row in rows)), iter(rows))


def _find(source: str) -> list[tuple[Path, str]]:
    """The files of a source in order, each with its name; hidden files and unknown formats in a folder are left out."""
    path = Path(os.path.expanduser(source))
    known = path.suffix.lower() in OPENERS
    with reading(path):
        mode = _mode(path)
        if mode is None and not known and _HUB_ID.fullmatch(source):
            raise fault(f"{source} is no path, and downloading from the Hub is not built yet: give a file or folder")
        if mode is None:
            raise fault(f"there is no file or folder {path}")
        if not path.is_absolute():
            raise fault(f"{source} is a relative path: give the absolute path")
        if stat.S_ISDIR(mode):
            files = sorted(_walk(path), key=lambda file: file.relative_to(path).parts)
            if not files:
                raise fault(f"the folder {path} has no {_FORMATS} file")
            return [(file, _shown(file.relative_to(path))) for file in files]
    if not stat.S_ISREG(mode):
        raise fault(f"{path} is neither a file nor a folder")
    if not known:
        raise fault(f"{path} is of no known format: give a {_FORMATS} file, or a folder of them")
    return [(path, _shown(Path(path.name)))]


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
            if not name.startswith(".") and path.suffix.lower() in OPENERS and path.is_file():
                yield path


def _shown(path: Path) -> str:
    return os.fsencode(path.as_posix()).decode(errors="replace")
