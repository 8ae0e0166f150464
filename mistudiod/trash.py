"""SAEs that were removed: ``trash/<id>/`` with ``trash.json``, ``sae/``, ``features/`` and ``exports/<format>/``.

What only the database knows of one is kept there, under a name that no SAE can have (``moving.in_trash``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from mistudiod import label_statements, moving, ranges
from mistudiod.database import Database
from mistudiod.errors import Conflict, NotFound, StoreError
from mistudiod.index import read_object
from mistudiod.jobs import now
from mistudiod.paths import PARTIAL, Paths, delete_tree, set_aside, write_whole

log = logging.getLogger("mistudiod.trash")
TRASH = "trash.json"
FORMAT = 1
KEPT = timedelta(days=7)
SWEEP_EVERY_S = 6 * 3600.0
Clock = Callable[[], datetime]


class Trashed(NamedTuple):
    """``labels``: how many features were labelled."""

    id: str
    name: str
    removed_at: str
    job: int | None
    labels: int

    @property
    def deleted_at(self) -> datetime:
        """When it is deleted for good."""
        return datetime.fromisoformat(self.removed_at.replace("Z", "+00:00")) + KEPT

    def shown(self) -> dict[str, Any]:
        at = self.deleted_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {**self._asdict(), "deleted_at": at}


def note(paths: Paths, id: str, name: str, job: int | None, labels: int) -> Trashed:
    """Write down what will lie in the trash as ``id``."""
    one = Trashed(id, name, now(), job, labels)
    folder = paths.trash / id
    folder.mkdir(parents=True)
    write_whole(folder / TRASH, [json.dumps({"format": FORMAT, **one._asdict()}, indent=1)])
    return one


def trashed(paths: Paths) -> list[Trashed]:
    """What can be restored, the newest first."""
    found = (_read(folder) for folder in folders(paths))
    return sorted((one for one in found if one is not None), key=lambda one: (one.removed_at, one.id), reverse=True)


def named(paths: Paths, ref: str) -> Trashed:
    """By id, or by the name that only one of them had. Raises NotFound, Conflict."""
    known = trashed(paths)
    found = [one for one in known if one.id == ref] or [one for one in known if one.name == ref]
    if not found:
        raise NotFound(f"there is no {ref!r} in the trash")
    if len(found) > 1:
        ids = ", ".join(f"{one.id} of {one.removed_at[:16].replace('T', ' ')}" for one in found)
        raise Conflict(f"{len(found)} SAEs named {ref!r} are in the trash; say which by its id: {ids}")
    return found[0]


def clear(paths: Paths, id: str) -> None:
    """Of what was restored nothing stays; if this is cut short, the next sweep does it."""
    folder = paths.trash / id
    (folder / TRASH).unlink(missing_ok=True)
    for empty in (folder / "exports", folder):
        with contextlib.suppress(OSError):
            empty.rmdir()


def folders(paths: Paths) -> Iterator[Path]:
    """All that lies in the trash, what cannot be restored too."""
    for folder in sorted(paths.trash.glob("*")):
        if not folder.name.startswith(PARTIAL) and folder.is_dir():
            yield folder


def _read(folder: Path) -> Trashed | None:
    """None of one that is not whole: it is on its way here or out of here, or damaged."""
    found = read_object(folder / TRASH)
    if found is None or not (folder / "sae").is_dir():
        return None
    try:
        one = Trashed(folder.name, *(found[field] for field in ("name", "removed_at", "job", "labels")))
        if one.deleted_at.tzinfo and isinstance(one.name, str) and isinstance(one.labels, int):
            return one
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        pass
    log.warning("%s is damaged; what lies there stays until the trash is emptied", folder / TRASH)
    return None


class Trash:
    """Deletes for good."""

    def __init__(self, database: Database, paths: Paths) -> None:
        self._database, self._paths = database, paths

    async def all(self) -> list[Trashed]:
        return await asyncio.to_thread(trashed, self._paths)

    async def empty(self, ref: str | None = None) -> list[str]:
        """Delete one of it, or all; returns the names of their folders. Raises NotFound, Conflict."""

        def chosen() -> list[Path]:
            return list(folders(self._paths)) if ref is None else [self._paths.trash / named(self._paths, ref).id]

        return await self._delete(chosen)

    async def sweep(self, at: datetime) -> list[str]:
        """Delete what was removed 7 days before ``at``, and what is left of what was restored; returns their ids."""

        def chosen() -> list[Path]:
            old = [self._paths.trash / one.id for one in trashed(self._paths) if one.deleted_at <= at]
            parts = ("sae", "features")
            return old + [one for one in folders(self._paths) if not any((one / part).exists() for part in parts)]

        return await self._delete(chosen)

    async def sweeping(self, clock: Clock = lambda: datetime.now(timezone.utc)) -> None:
        """Sweep now and again until cancelled."""
        while True:
            try:
                for id in await self.sweep(clock()):
                    log.info("deleted %s out of the trash for good", id)
            except (OSError, StoreError) as error:
                log.warning("the trash cannot be swept: %s", error)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _delete(self, chosen: Callable[[], list[Path]]) -> list[str]:
        """Folders are chosen where nothing is moved meanwhile; what the database knows of one that is gone goes too."""

        def forget(db: sqlite3.Connection) -> tuple[list[str], list[Path | None]]:
            half, kept = moving.begun(self._paths), moving.in_trash("")
            gone = [one for one in chosen() if half is None or moving.in_trash(one.name) not in (half.old, half.new)]
            there = {moving.in_trash(folder.name) for folder in set(folders(self._paths)) - set(gone)}
            for place in label_statements.names(db, kept) | ranges.names(db, kept):
                if place not in there:
                    label_statements.forget(db, place)
                    ranges.forget(db, place)
            return [folder.name for folder in gone], [set_aside(folder) for folder in gone]

        ids, gone = await self._database.write(forget)
        for folder in filter(None, gone):
            await asyncio.to_thread(delete_tree, folder)
        return ids
