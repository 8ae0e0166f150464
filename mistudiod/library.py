"""The SAEs that are kept: what a person says of them, what depends on one, renamed, removed and restored.

Each change is one transaction, in which the folders are moved before the rows are (``moving``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mistudiod import about, label_statements, moving, profiles, ranges, steerings
from mistudiod.database import Database
from mistudiod.dependents import dependents
from mistudiod.errors import Conflict, Invalid, NotFound, StudioError
from mistudiod.index import Artifact, Index, read_info, read_object
from mistudiod.jobs import LIVE, State
from mistudiod.moving import Move
from mistudiod.paths import Paths
from mistudiod.statements import job_row, maker, refuse_taken
from mistudiod.trash import Trashed, clear, named, note
from mistudiod.users import users

log = logging.getLogger("mistudiod.library")
_NAMED = 5  # jobs, in a sentence


class Library:
    """``in_session``: whether the resident model has the SAE of a name in memory."""

    def __init__(
        self, database: Database, paths: Paths, index: Index, in_session: Callable[[str], bool] = lambda name: False
    ) -> None:
        self._database, self._paths, self._index, self._in_session = database, paths, index, in_session

    async def dependents(self, ref: str) -> dict[str, Any]:
        """What is to be known before an SAE is removed, as ``dependents.dependents`` has it. Raises NotFound."""
        sae = await self._index.get("sae", ref)
        found = await self._database.read(lambda db: dependents(db, self._paths, sae))
        return {"sae": sae["name"], **found, "in_session": self._in_session(sae["name"])}

    async def say(self, ref: str, add: Sequence[str], remove: Sequence[str], notes: Mapping[str, Any]) -> Artifact:
        """Give an SAE tags, take others away; ``notes``: {"note": text or None}, or nothing.

        Raises NotFound, Invalid, and Conflict while it is trained.
        """
        name = (await self._index.get("sae", ref))["name"]

        def write(db: sqlite3.Connection) -> Artifact:
            self._index.of(db, "sae", name)
            folder = self._paths.artifact("sae", name)
            if (job := maker(db, "sae", name)) and State(job_row(db, job)["state"]) in LIVE:
                raise Conflict(f"job {job} trains the sae {name!r}: say that of it when the job is over or paused")
            info = read_info(self._paths, "sae", name)
            if info is None:
                raise NotFound(f"the folder of the SAE {name!r} is gone: put it back, or start the studio anew")
            known = about.said(read_object(folder / about.ABOUT))
            try:
                edited = about.edited(known, add, remove, **notes)
            except ValueError as error:
                raise Invalid(f"{name}: {error}", {"add_tags": str(error)}) from None
            rest = {field: value for field, value in info.items() if field not in known}
            put = self._index.put(db, "sae", name, rest | edited, None)
            if edited != known:
                try:  # last: what fails before it leaves the folder alone
                    about.write(folder, edited)
                except OSError as error:
                    raise _not_done(error) from error
            return put

        return await self._database.write(write)

    async def rename(self, ref: str, name: str) -> Artifact:
        """Its features, labels, marks, ranges, exports, and what profiles and runs of steering say, go with it.

        Raises NotFound; Conflict while a job or the session uses it, and when the name is taken.
        """
        was = (await self._index.get("sae", ref))["name"]
        self._refuse_in_session(was, "rename")

        def prepare(db: sqlite3.Connection) -> Move:
            sae = self._index.of(db, "sae", was)
            _refuse_in_use(db, was)
            _refuse_taken(db, name, but=was)
            moving.check_room(self._paths, name)
            return Move(was, name, was, sae["id"], None)

        await self._move(prepare)
        return await self._index.get("sae", name)

    async def remove(self, ref: str) -> Trashed:
        """Put it into the trash with its features, labels, marks, ranges and exports.

        Raises NotFound; Conflict while a job or the session uses it.
        """
        name = (await self._index.get("sae", ref))["name"]
        self._refuse_in_session(name, "remove")
        removed: list[Trashed] = []

        def prepare(db: sqlite3.Connection) -> Move:
            sae = self._index.of(db, "sae", name)
            _refuse_in_use(db, name)
            id = secrets.token_hex(4)
            move = Move(name, moving.in_trash(id), name, sae["id"], sae["job"])
            moving.check_room(self._paths, move.new)
            removed.append(note(self._paths, id, name, sae["job"], label_statements.count(db, name)))
            return move

        await self._move(prepare)
        return removed[0]

    async def restore(self, ref: str, name: str | None = None) -> tuple[Artifact, bool]:
        """What was removed, under its name or another; and whether its labels came with it.

        Raises NotFound; Conflict when the name is taken, or several of the name ``ref`` are in the trash.
        """
        one = await asyncio.to_thread(named, self._paths, ref)
        new = name or one.name

        def prepare(db: sqlite3.Connection) -> Move:
            named(self._paths, one.id)  # it is there still
            try:
                _refuse_taken(db, new)
            except Conflict as conflict:
                message = f"{conflict.message}; or restore it under another name"
                raise Conflict(message, {"name": "is taken"}) from None
            moving.check_room(self._paths, new)
            return Move(moving.in_trash(one.id), new, one.name, None, one.job)

        await self._move(prepare)
        await asyncio.to_thread(clear, self._paths, one.id)
        labelled = await self._database.read(lambda db: label_statements.count(db, new))
        return await self._index.get("sae", new), labelled >= one.labels

    async def mend(self) -> None:
        """Finish what the last daemon had begun, or take it back; before the index is rebuilt.

        What allows neither, as a full disk, is logged and left to the next start: this one is needed to make room.
        """
        move = await asyncio.to_thread(moving.begun, self._paths)
        if move is None:
            return
        try:
            if await asyncio.to_thread(moving.carry_out, self._paths, move):
                await self._database.write(lambda db: self._rows(db, move) if _is_due(db, move) else None)
                log.info("%s is at %s now: that was begun before the studio ended", move.old, move.new)
            await asyncio.to_thread(moving.end, self._paths)
        except (OSError, StudioError) as error:
            due = await self._database.read(lambda db: _is_due(db, move))
            if due and await asyncio.to_thread(moving.take_back, self._paths, move):
                log.warning("%s stays where it was, not at %s: %s", move.old, move.new, moving.why(error))
            else:
                log.error("%s is half at %s: %s", move.old, move.new, moving.not_taken_back(error))

    # -- how it is done ------------------------------------------------------------------------------------------

    async def _move(self, prepare: Callable[[sqlite3.Connection], Move]) -> None:
        """``prepare`` checks that it may be. Raises what that does, Conflict, StoreError; nothing has changed then."""
        begun: list[Move] = []

        def move(db: sqlite3.Connection) -> None:
            one = moving.begin(self._paths, prepare(db))
            begun.append(one)
            if not moving.carry_out(self._paths, one):
                raise Conflict(f"the folder of the SAE {one.was!r} is gone: put it back, or start the studio anew")
            self._rows(db, one)

        try:
            await self._database.write(move)
        except Exception as error:
            if begun and not await asyncio.to_thread(moving.take_back, self._paths, begun[0]):
                raise moving.not_taken_back(error) from error
            if isinstance(error, OSError):
                raise _not_done(error) from error
            raise
        await asyncio.to_thread(moving.end, self._paths)

    def _rows(self, db: sqlite3.Connection, move: Move) -> None:
        label_statements.rename(db, move.old, move.new)
        ranges.rename(db, move.old, move.new)
        if move.is_renamed:
            steerings.rename_sae(db, move.old, move.new)
            profiles.rename_sae(db, move.old, move.new)
        self._index.move_sae(db, None if move.is_restored else move.old, move.name, move.job)

    def _refuse_in_session(self, name: str, what: str) -> None:
        if self._in_session(name):
            raise Conflict(
                f"the session has the SAE {name!r} in memory: end it first (mistudio session stop), then {what}"
            )


def _not_done(error: OSError) -> Conflict:
    return Conflict(f"{moving.why(error)}: nothing was changed")


def _is_due(db: sqlite3.Connection, move: Move) -> bool:
    """Whether the rows have still to be moved."""
    if move.is_restored:
        return not db.execute("select 1 from artifacts where noun = 'sae' and name = ?", (move.new,)).fetchone()
    query = "select 1 from artifacts where noun = 'sae' and id = ? and name = ?"
    return db.execute(query, (move.row, move.old)).fetchone() is not None


def _refuse_taken(db: sqlite3.Connection, name: str, but: str = "") -> None:
    """``but``: another spelling of this very name is free. Raises Conflict."""
    if name == but or name.lower() != but.lower():
        refuse_taken(db, "sae", [name])


def _refuse_in_use(db: sqlite3.Connection, name: str) -> None:
    """Raises Conflict, naming the unfinished jobs that read an SAE or will make it."""
    if job := maker(db, "sae", name):
        raise Conflict(f"job {job} makes the sae {name!r}; stop it first or wait for its end")
    jobs = users(db, "sae", name)
    if len(jobs) == 1:
        raise Conflict(f"job {jobs[0]} uses the sae {name!r}; stop it first or wait for its end")
    if jobs:
        *some, last = map(str, jobs[:_NAMED])
        more = f" ({len(jobs):,} in all)" if len(jobs) > _NAMED else ""
        told = f"jobs {', '.join(some)} and {last}{more} use the sae {name!r}"
        raise Conflict(f"{told}; stop them first or wait for their end")
