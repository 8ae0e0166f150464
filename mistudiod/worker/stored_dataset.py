"""A dataset of the studio, as ``add_dataset`` wrote it: what it is, and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mistudiod.worker.link import Link, Refused


@dataclass(frozen=True)
class StoredDataset:
    name: str
    documents: int
    text_bytes: int
    files: list[Path]


def stored_dataset(link: Link, name: str) -> StoredDataset:
    """Raises Refused when there is no such dataset, or it is damaged."""
    folder = link.paths.artifact("dataset", name)
    try:
        info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        documents, text_bytes = int(info["rows"]), int(info["bytes"])
    except FileNotFoundError:
        raise Refused(f"there is no dataset called {name!r}: add it first", "dataset") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(name, error) from error
    return StoredDataset(name, documents, text_bytes, sorted(folder.glob("data-*.parquet")))


@contextmanager
def reading_dataset(name: str) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> Refused:
    reason = (str(error).splitlines() or ["unknown error"])[0][:300]
    return Refused(f"the dataset {name!r} is damaged ({reason}): delete it and add it again", "dataset")
