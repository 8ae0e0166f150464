"""The files of a feature store, opened: whether they are as the manifest says, what is read whole, what is mapped."""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from typing import Any

from mistudiod.page_record import FILES, FORMAT, POSTINGS, typed

_NUMBERS = {"d_sae": 1, "context": 1, "rows": 0, "tokens": 0}  # of the manifest, and the least that each may be


class AnotherFormat(ValueError):
    """The store is whole, but of a format that this version does not read."""


def damaged(folder: Path, what: object) -> ValueError:
    return ValueError(f"the feature store {folder} is damaged: {what}; extract the features again")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once every file is there and as large as it says; raises ValueError, one sentence, else."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(folder, f"manifest.json cannot be read ({error})") from None
    if not isinstance(manifest, dict):
        raise damaged(folder, "manifest.json holds no JSON object")
    made = manifest.get("format")
    if made != FORMAT:
        by = "a newer" if isinstance(made, int) and made > FORMAT else "an older"
        raise AnotherFormat(f"{folder} was made by {by} version: extract the features again")
    for name, least in _NUMBERS.items():
        value = manifest.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise damaged(folder, f"manifest.json has no {name}")
    if manifest.get("token_bytes") not in (2, 4):
        raise damaged(folder, "manifest.json has no token_bytes")
    _check_sizes(folder, manifest)
    return manifest


def _check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    listed = manifest.get("files")
    for name in (*FILES, *(POSTINGS if manifest.get("postings") else ())):
        about = listed.get(name) if isinstance(listed, dict) else None
        if not isinstance(about, dict):
            raise damaged(folder, f"manifest.json does not name {name}")
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise damaged(folder, f"{name} is missing") from None
        if size != about.get("bytes"):
            raise damaged(folder, f"{name} has {size:,} bytes, not the {about.get('bytes')} of the manifest")


def read(path: Path, type_: str, length: int) -> Any:
    """A whole file of ``length`` numbers, in memory. Raises ValueError when it is of another size."""
    return _typed(memoryview(path.read_bytes()), path.name, type_, length)


def mapped(path: Path, type_: str, length: int | None = None) -> Any:
    """A file of numbers, mapped. Raises ValueError when it is of another size than ``length`` of them have."""
    return _typed(memoryview(mapping(path)), path.name, type_, length)


def mapping(path: Path) -> mmap.mmap | bytes:
    """A file's bytes, mapped; an empty file cannot be."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _typed(found: memoryview, name: str, type_: str, length: int | None) -> Any:
    item = struct.calcsize(type_)
    if len(found) % item or length not in (None, len(found) // item):
        raise ValueError(f"{name} has {len(found):,} bytes, which is not what belongs there")
    return typed(found, type_)
