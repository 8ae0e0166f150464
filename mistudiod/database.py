"""One SQLite file: one writer thread, a few read-only readers, and its coming of age.

Every write is a function that runs in the writer thread inside ``BEGIN IMMEDIATE``; a cancelled ``await`` does not
cancel the write. Readers are separate connections that cannot write. With one writer in one process the WAL never
sees two writers (the WAL-reset bug of SQLite before 3.51.3 needs them).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mistudiod import schema
from mistudiod.errors import StoreError
from mistudiod.jobs import now
from mistudiod.kept_backups import newest_copy
from mistudiod.meters import WRITE_S, Histogram
from mistudiod.paths import PARTIAL, sync

T = TypeVar("T")
log = logging.getLogger("mistudiod.database")
_READERS = 2
_LOOK_AGAIN_MS = 500  # while another program writes
_INTERRUPT_AGAIN_S = 0.1  # there is more than one statement in a migration
KEPT_EVENTS = 8192
_PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = full",  # machines on a shelf are unplugged; state changes are few
    "pragma busy_timeout = 5000",
    "pragma foreign_keys = on",
    "pragma journal_size_limit = 67108864",
    "pragma temp_store = memory",
)


Told = Callable[[int, str, dict[str, Any]], None]


def tell(db: sqlite3.Connection, topic: str, data: dict[str, Any]) -> None:
    """Note, in the transaction that makes it true, a state that readers are to hear of once it is committed."""
    cursor = db.execute("insert into events (topic, data) values (?, ?)", (topic, json.dumps(data)))
    if (newest := int(cursor.lastrowid or 0)) % 256 == 0:
        db.execute("delete from events where id <= ?", (newest - KEPT_EVENTS,))


class Database:
    """Open with ``open()``; ``write`` and ``read`` take a function of a connection.

    ``told(id, topic, data)`` is called in the event loop for each state that a committed transaction told of, in
    their order and before ``write`` returns.
    """

    def __init__(self, path: Path, backups: Path) -> None:
        self.path, self.backups = path, backups
        self.told: Told | None = None
        self.newest_event = 0
        self.writes = Histogram(WRITE_S)  # seconds from asking for one until it is committed
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")
        self._local = threading.local()
        self._given_up = threading.Event()
        self._connections: list[sqlite3.Connection] = []

    async def open(self) -> None:
        """Raises StoreError when the file is damaged or newer than this program.

        When it is cancelled, a migration that is under way is taken back.
        """
        self._loop = asyncio.get_running_loop()
        opening = self._loop.run_in_executor(self._writer, self._open)
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            await self._give_up(opening)
            raise

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        began = time.perf_counter()
        future = asyncio.get_running_loop().run_in_executor(self._writer, self._transaction, function)
        future.add_done_callback(lambda _: self.writes.add(time.perf_counter() - began))
        return await asyncio.shield(future)

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._query, function)

    async def ping(self) -> None:
        """Have the writer begin a transaction and end it. Raises StoreError when the database refuses."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._transaction, lambda _: None)

    def sizes(self) -> tuple[int, int]:
        """Bytes of the file and of its write-ahead log."""
        wal = self.path.with_name(self.path.name + "-wal")
        return self.path.stat().st_size, wal.stat().st_size if wal.exists() else 0

    async def close(self) -> None:
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        await asyncio.get_running_loop().run_in_executor(self._writer, lambda: self._connection.close())
        self._writer.shutdown()

    async def _give_up(self, opening: asyncio.Future[None]) -> None:
        self._given_up.set()
        while not opening.done():
            with contextlib.suppress(AttributeError, sqlite3.ProgrammingError):  # it is not there yet, or closed again
                self._connection.interrupt()
            await asyncio.wait({opening}, timeout=_INTERRUPT_AGAIN_S)
        if opening.exception() is None:
            await self.close()

    def _open(self) -> None:
        lost = not self.path.exists() and newest_copy(self.backups) is not None
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            try:
                self._look_over()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise StoreError(f"the database {self.path} cannot be used ({error}); {self._instead()}") from error
        if lost:
            log.warning("the database %s was gone: jobs and artifacts are read from their folders; labels, marks and "
                        "what was steered are not among them; %s", self.path, self._instead())  # fmt: skip

    def _instead(self) -> str:
        """What can be done when the database is damaged or lost."""
        copy = newest_copy(self.backups)
        if copy is None:
            return f"there is no copy in {self.backups}: move the file away and run mistudiod reindex, without labels"
        return (
            f"the newest copy is {copy}: stop the studio and run mistudiod restore --database --data {self.path.parent}"
        )

    def _look_over(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._wait_for_others()
        for pragma in _PRAGMAS:
            self._connection.execute(pragma)
        problem = self._connection.execute("pragma quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        self._migrate()
        found = self._connection.execute("select seq from sqlite_sequence where name = 'events'").fetchone()
        self.newest_event = found[0] if found else 0

    def _wait_for_others(self) -> None:
        """Until no other program writes, however long it takes: a person's sqlite3, a copy that is being made."""
        self._connection.execute(f"pragma busy_timeout = {_LOOK_AGAIN_MS}")
        said = False
        while not self._given_up.is_set():
            try:
                self._connection.execute("begin immediate")
                self._connection.execute("rollback")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
            if not said:
                log.warning("another program writes to the database %s; waiting until it is done", self.path)
            said = True
        raise StoreError(f"the database {self.path} was not opened: the studio is to stop")

    def _migrate(self) -> None:
        applied, known = schema.applied(self._connection), schema.known()
        if newer := sorted(applied - known):
            raise StoreError(
                f"the database {self.path} was written by a newer miStudio (it has {newer[-1]}); "
                "install that version, or choose another data folder"
            )
        if not known - applied:
            return
        try:
            if applied:
                self._copy()
            schema.migrate(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the database {self.path} cannot be brought up to date ({error}); nothing in it was changed: mend "
                "that and start again, or go on with the version before"
            ) from error

    def _copy(self) -> None:
        """Into the folder of backups; what is there under its name is whole."""
        self.backups.mkdir(exist_ok=True)
        copy = self.backups / f"mistudio-{now().replace(':', '')}.db"
        partial = copy.with_name(f"{PARTIAL}{copy.name}")
        try:
            self._connection.execute("vacuum into ?", (str(partial),))
            sync(partial)
            partial.rename(copy)
        finally:
            partial.unlink(missing_ok=True)
        sync(self.backups)

    def _transaction(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._connection.execute("begin immediate")
            try:
                result = function(self._connection)
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
        except sqlite3.OperationalError as error:
            raise StoreError(f"the database {self.path} cannot be written: {error}") from error
        self._tell()
        return result

    def _tell(self) -> None:
        query = "select id, topic, data from events where id > ? order by id"
        try:
            rows = self._connection.execute(query, (self.newest_event,)).fetchall()
        except sqlite3.Error:  # the write itself is done, and must not be taken for one that has failed
            log.exception("what was written cannot be told; it is with the next write")
            return
        for row in rows:
            self.newest_event = row["id"]
            if self.told:
                self._loop.call_soon_threadsafe(self.told, row["id"], row["topic"], json.loads(row["data"]))

    def _query(self, function: Callable[[sqlite3.Connection], T]) -> T:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("pragma query_only = on")
            connection.execute("pragma busy_timeout = 5000")
            self._local.connection = connection
            self._connections.append(connection)
        connection.execute("begin")  # all that one function reads is of one moment
        try:
            return function(connection)
        finally:
            connection.execute("rollback")
