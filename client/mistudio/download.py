"""Bring an SAE here: its folder, whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mistudio.api import Client

Told = Callable[[int, int], None]
_BLOCK_BYTES = 1 << 20


def fetch(client: Client, sae: str | int, folder: Path, told: Told | None = None) -> Path:
    """Make ``folder`` with an SAE's files, as SAELens loads them. ``told`` hears how many bytes of how many are there.

    What was cut off lies beside it as ``.partial-<name>``, and the same call goes on from there. Raises
    FileExistsError when the folder is there already, RuntimeError when a file did not come as it was sent.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: choose another place, or move it away")
    files = client.files(sae)
    if odd := [file["name"] for file in files if Path(file["name"]).name != file["name"]]:
        raise RuntimeError(f"the studio names a file {odd[0]!r}, which is no plain name: nothing was fetched")
    partial = folder.with_name(f".partial-{folder.name}")
    partial.mkdir(parents=True, exist_ok=True)
    total_bytes, done_bytes = sum(file["bytes"] for file in files), 0
    for file in files:
        for count in _pieces(client, sae, file, partial / file["name"]):
            done_bytes += count
            if told:
                told(done_bytes, total_bytes)
        _check(partial / file["name"], file)
    wanted = {file["name"] for file in files}
    for other in partial.iterdir():  # of an earlier SAE of that name
        if other.name not in wanted:
            other.unlink()
    partial.rename(folder)
    return folder


def _pieces(client: Client, sae: str | int, file: dict[str, Any], place: Path) -> Iterator[int]:
    with place.open("ab") as out:
        at = out.tell()
        yield at
        if at < file["bytes"]:
            with client.file(sae, file["name"], at) as blocks:
                for block in blocks:
                    out.write(block)
                    yield len(block)


def _check(place: Path, file: dict[str, Any]) -> None:
    digest = hashlib.sha256()
    with place.open("rb") as found:
        while block := found.read(_BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != file["sha256"]:
        shutil.rmtree(place.parent)
        raise RuntimeError(f"{file['name']} did not come as it was sent: try again")
