"""The rows of an export's files, one at a time: files of gigabytes are never whole in memory."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

LONGEST = 16 << 20  # bytes of a line; an honest one has thousands
_BATCH = re.compile(r"batch-(0|[1-9][0-9]{0,8})\.jsonl\.gz")


def batch_of(name: str) -> int | None:
    """``batch-12.jsonl.gz`` → 12; None of another name."""
    found = _BATCH.fullmatch(name)
    return int(found[1]) if found else None


def batch_files(folder: Path) -> list[tuple[int, Path]]:
    """The batches of a folder, by number; none when there is no such folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    numbered = ((batch_of(path.name), path) for path in found)
    return sorted((number, path) for number, path in numbered if number is not None)


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzipped when its name says so, without their ends.

    Raises ValueError, one sentence, when it is damaged or has a line that is too long; OSError.
    """
    with path.open("rb") as plain:
        file: IO[bytes] = gzip.GzipFile(fileobj=plain) if path.suffix == ".gz" else plain  # type: ignore[assignment]
        try:
            while line := file.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise ValueError(f"{path.name} has a line of more than {LONGEST:,} bytes")
                yield line.removesuffix(b"\n")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path.name} is damaged: {error}") from None


def row(line: bytes) -> dict[str, Any]:
    """Raises ValueError, one sentence, for what is no JSON object."""
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError("is no JSON object")
    return found
