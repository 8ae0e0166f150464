"""Bring an SAE or an export here: its folder, whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mistudio.api import Client

Told = Callable[[int, int], None]
Content = Callable[[str, int], AbstractContextManager[Iterator[bytes]]]  # of a file, from a byte on
_BLOCK_BYTES = 1 << 20


def fetch(client: Client, sae: str | int, folder: Path, told: Told | None = None) -> Path:
    """Make ``folder`` with an SAE's files, as SAELens loads them. ``told`` hears how many bytes of how many are there.

    What was cut off lies beside it as ``.partial-<name>``, and the same call goes on from there. Raises
    FileExistsError when the folder is there already, RuntimeError when a file did not come as it was sent.
    """
    require_free(folder)
    return _fetched(client.files(sae), lambda file, at: client.file(sae, file, at), folder, told)


def fetch_export(client: Client, export: str, folder: Path, told: Told | None = None) -> Path:
    """Make ``folder`` with the files of an export; as ``fetch`` does."""
    require_free(folder)
    return _fetched(client.export_files(export), lambda file, at: client.export_file(export, file, at), folder, told)


def require_free(folder: Path) -> None:
    """Raises FileExistsError for a folder that is there already."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: choose another place, or move it away")


def _fetched(files: list[dict[str, Any]], content: Content, folder: Path, told: Told | None) -> Path:
    if odd := [file["name"] for file in files if not _is_plain(file["name"])]:
        raise RuntimeError(f"the studio names a file {odd[0]!r}, which is no plain name: nothing was fetched")
    partial = folder.with_name(f".partial-{folder.name}")
    partial.mkdir(parents=True, exist_ok=True)
    wanted = {partial / file["name"] for file in files}
    for other in partial.rglob("*"):  # of an earlier one of that name
        if other.is_file() and other not in wanted:
            other.unlink()
    total_bytes, done_bytes = sum(file["bytes"] for file in files), 0
    for file in files:
        place = partial / file["name"]
        place.parent.mkdir(parents=True, exist_ok=True)
        for count in _pieces(content, file, place):
            done_bytes += count
            if told:
                told(done_bytes, total_bytes)
        _check(place, file, partial)
    partial.rename(folder)
    return folder


def _is_plain(name: str) -> bool:
    """Whether a name, with the folders before it, can lie nowhere but in the folder that is made."""
    parts = name.split("/")
    return "\\" not in name and "\0" not in name and not any(part in ("", ".", "..") for part in parts)


def _pieces(content: Content, file: dict[str, Any], place: Path) -> Iterator[int]:
    with place.open("ab") as out:
        at = out.tell()
        yield at
        if at < file["bytes"]:
            with content(file["name"], at) as blocks:
                for block in blocks:
                    out.write(block)
                    yield len(block)


def _check(place: Path, file: dict[str, Any], partial: Path) -> None:
    digest = hashlib.sha256()
    with place.open("rb") as found:
        while block := found.read(_BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != file["sha256"]:
        shutil.rmtree(partial)
        raise RuntimeError(f"{file['name']} did not come as it was sent: try again")
