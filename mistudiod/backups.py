"""Backups of the studio while it runs: one at a time, for whoever asks, and each night into the folder ``backups``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from mistudiod import backup_file, kept_backups, snapshot
from mistudiod.arriving import in_thread
from mistudiod.backup_file import BadBackup
from mistudiod.errors import Conflict, StoreError, StudioError
from mistudiod.jobs import now
from mistudiod.kept_backups import FAILED, backups_in, failed, made_at, name_of
from mistudiod.paths import PARTIAL, DiskFull, Paths, delete_tree, sync, write_whole
from mistudiod.snapshot import Contents, Snapshot, Stopped

log = logging.getLogger("mistudiod.backups")
SHORT_BYTES = 500_000_000  # a nightly backup leaves that much of the disk to others
_FIRST_LOOK_S = 300.0  # after the start, which has enough to do
_LOOK_EVERY_S = 600.0  # a clock that jumps, or a machine that sleeps, is noticed then
_TRY_AGAIN_S = 3600.0
_TRIES = 5
Clock = Callable[[], datetime]
T = TypeVar("T")


def _utc() -> datetime:
    return datetime.now(timezone.utc)


class Backups:
    """``at``: the setting ``backup_at``; ``kept``: how many nightly ones stay."""

    def __init__(self, paths: Paths, at: str, kept: int, clock: Clock = _utc) -> None:
        self._paths, self._at, self._kept, self._clock = paths, kept_backups.parse_time(at), kept, clock
        self._shown_at = at
        self._one_at_a_time = asyncio.Lock()

    async def survey(self, saes: bool) -> dict[str, Any]:
        """What a backup would hold now, and how the nightly ones are."""
        found = await asyncio.to_thread(self._contents, saes)
        left_out = [one._asdict() for one in found.left_out]
        size = sum(piece.bytes for piece in found.files) + snapshot.database_bytes(self._paths)
        about = {"name": name_of(self._clock()), "files": len(found.files) + 1, "bytes": size, "left_out": left_out}
        return {**about, "nightly": await asyncio.to_thread(self._nightly)}

    @asynccontextmanager
    async def taking(self, saes: bool) -> AsyncIterator[Snapshot]:
        """What goes into a backup, until the end of the block. Raises Conflict, StoreError, DiskFull, OSError."""
        if self._one_at_a_time.locked():
            raise Conflict("another backup is being made: wait for its end")
        async with self._one_at_a_time:
            found = await _unless_cancelled(
                snapshot.take, self._paths, saes, undo=lambda made: delete_tree(made.folder)
            )
            try:
                yield found
            finally:
                await asyncio.shield(asyncio.to_thread(delete_tree, found.folder))

    async def run(self) -> None:
        """Make one each night, until cancelled."""
        if self._at is None:
            return
        await asyncio.sleep(_FIRST_LOOK_S)
        while True:
            await asyncio.sleep(_LOOK_EVERY_S if await self.look() else _TRY_AGAIN_S)

    async def look(self) -> bool:
        """Make the nightly one if it is due; False when that has failed, which is logged and kept for the doctor."""
        made = [at for path in backups_in(self._paths.backups) if (at := made_at(path)) is not None]
        if self._at is None or not kept_backups.is_due(self._at, made, self._clock()):
            return True
        try:
            await self.make()
            return True
        except (StudioError, BadBackup, OSError) as error:
            log.warning("the nightly backup failed, and is tried again in an hour: %s", error)
            try:
                text = json.dumps({"at": now(), "message": str(error)})
                await asyncio.to_thread(write_whole, self._paths.backups / FAILED, [text])
            except OSError as why:
                log.warning("that cannot be kept for the doctor: %s", why)
            return False

    async def make(self) -> Path:
        """Make one into the folder ``backups``, and delete those that are too many. Raises as ``taking``, BadBackup."""
        async with self.taking(saes=False) as found:
            place = self._paths.backups / name_of(self._clock())
            await _unless_cancelled(write, found, place, SHORT_BYTES)
        await asyncio.to_thread(self._tidy, place)
        log.info("made the backup %s", place)
        return place

    def _contents(self, saes: bool) -> Contents:
        for _ in range(_TRIES):
            try:
                return snapshot.contents(self._paths, saes)
            except FileNotFoundError:  # what was there a moment ago is removed
                continue
        raise StoreError("things are removed all the while: ask again")

    def _nightly(self) -> dict[str, Any]:
        names = [path.name for path in reversed(backups_in(self._paths.backups))]
        return {"at": self._shown_at, "kept": self._kept, "names": names, "failed": failed(self._paths.backups)}

    def _tidy(self, made: Path) -> None:
        (self._paths.backups / FAILED).unlink(missing_ok=True)
        for path in kept_backups.too_many(self._paths.backups, self._kept, self._clock()):
            if path != made:
                path.unlink(missing_ok=True)


async def _unless_cancelled(
    function: Callable[..., T], *args: object, undo: Callable[[T], object] = lambda _: None
) -> T:
    """Run it in a thread, with an event that is set when nobody wants it any more; ``undo`` what was made all the same.

    Raises errors.DiskFull besides.
    """
    stop = threading.Event()
    task = asyncio.ensure_future(in_thread(function, *args, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Stopped, StudioError, BadBackup, OSError):
            await asyncio.to_thread(undo, await task)
        raise


def write(found: Snapshot, place: Path, spare_bytes: int, stop: threading.Event) -> None:
    """A backup as a file, which is read again before it has its name. Raises DiskFull, BadBackup, OSError, Stopped."""
    size, blocks = backup_file.pack(found.about, found.pieces)
    free = shutil.disk_usage(place.parent).free
    if free < size + spare_bytes:
        raise DiskFull(
            f"the disk is nearly full: the backup takes {size / 1e6:,.1f} MB and {spare_bytes / 1e6:,.0f} MB "
            f"are to stay free under {place.parent}, {free / 1e6:,.1f} MB are free; free some space (mistudio clean)"
        )
    partial = place.with_name(f"{PARTIAL}{place.name}")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            for block in blocks:
                if stop.is_set():
                    raise Stopped
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        with open(partial, "rb") as file:
            backup_file.unpack(file, None)
        partial.rename(place)
        sync(place.parent)
    finally:
        partial.unlink(missing_ok=True)
