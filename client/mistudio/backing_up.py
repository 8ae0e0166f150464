"""Bring a backup of the studio here: one file, which is there when it is whole and was read again."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistudio.errors import Unreachable
from mistudiod import backup_file
from mistudiod.backup_file import BadBackup

if TYPE_CHECKING:
    from mistudio.api import Client

Told = Callable[[int, int], None]
_NAME = re.compile(r"mistudio-[A-Za-z0-9-]+\.tar")  # as mistudiod.kept_backups.name_of makes them
_SPARE_BYTES = 16 << 20
_HEADER_BYTES = 1536  # of each file, at most: its header, what fills its last block up, and its sum


def place_of(to: Path, name: str) -> Path:
    """``to`` is a folder that is there, or the file. Raises ValueError when nothing can be written there."""
    if to.is_dir() and not _NAME.fullmatch(name):
        raise ValueError(
            f"the studio names its backup {name[:100]!r}, which is no name for one: name the file yourself"
        )
    place = to / name if to.is_dir() else to
    if place.exists():
        raise ValueError(f"{place} is there already: choose another place, or move it away")
    if not place.parent.is_dir():
        raise ValueError(f"there is no folder {place.parent}: make it first")
    return place


def fetch(client: Client, about: dict[str, Any], place: Path, saes: bool, told: Told) -> None:
    """Write the backup ``about`` which the studio has told. ``told`` hears how many bytes of how many have come.

    Raises ValueError, RuntimeError, OSError with one sentence; what was begun is taken away then.
    """
    expected = about["bytes"]
    free = shutil.disk_usage(place.parent).free
    if free < expected + about["files"] * _HEADER_BYTES + _SPARE_BYTES:
        raise ValueError(f"it takes {expected / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free under {place.parent}")
    partial = place.with_name(f".partial-{place.name}-{os.getpid()}")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            _receive(client, file.write, expected, saes, told)
            file.flush()
            os.fsync(file.fileno())
        with open(partial, "rb") as file:
            backup_file.unpack(file, None)
        partial.rename(place)
    except BadBackup as error:
        raise RuntimeError(f"{error}; nothing was kept, try again") from error
    finally:
        partial.unlink(missing_ok=True)


def _receive(client: Client, write: Callable[[bytes], Any], expected: int, saes: bool, told: Told) -> None:
    done = 0
    try:
        with client.make_backup(saes) as blocks:
            for block in blocks:
                write(block)
                done += len(block)
                told(min(done, expected), expected)
    except Unreachable as error:
        if not done:
            raise
        raise RuntimeError("the studio broke off; nothing was kept, try again") from error
