"""Who has the GPU: the table ``leases``. A job, or a session with a model, has the lane from ``taken_at`` to
``released_at``, which is written when its process has ended; that nobody else has it meanwhile the index sees to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mistudiod.busy import GOES_ON
from mistudiod.database import Database
from mistudiod.errors import StoreError
from mistudiod.jobs import State, now
from mistudiod.statements import Job, job_row, move
from mistudiod.turn import Turn

T = TypeVar("T")
_LANE = "gpu"
_KEPT = 1000  # of the last ones it is known who had the GPU
_NEXT = """from jobs where state = 'queued' and lane = ?
           and not exists (select 1 from dependencies d join jobs n on n.id = d.needs
                           where d.job = jobs.id and n.state != 'done')"""


@dataclass(frozen=True)
class Held:
    """A lease that nobody has given back, and the process that was started under it."""

    id: int
    job: int | None
    pid: int | None
    pid_starttime: int | None
    boot_id: str | None


@dataclass(frozen=True)
class Answer:
    """``lease``: it is the session's. Otherwise ``job`` has the GPU or is next; ``leaves``: it has been asked to go, or
    will be in ``after_s``, when the jobs' turn is over.
    """

    lease: int | None = None
    job: Job | None = None
    leaves: bool = False
    after_s: float = 0.0

    @property
    def asked(self) -> bool:
        """A job makes room, and goes on only when the session has given back its lease."""
        return self.leaves and self.job is not None and bool(self.job["yielded"])


def claim(db: sqlite3.Connection, lane: str, busy_kinds: Sequence[str], reserved: Callable[[], bool]) -> Job | None:
    """Move the next job whose dependencies are done to running, as a new attempt, which has the lease when it takes
    the GPU; None when there is none, or the GPU is not to be had.

    ``busy_kinds``: kinds of which none may start now. ``reserved``: whether the next lease is a session's.
    """
    if lane == _LANE and (_held(db) is not None or reserved()):
        return None
    marks = ",".join("?" * len(busy_kinds))
    row = db.execute(
        f"select id {_NEXT} and kind not in ({marks}) order by priority desc, id limit 1", (lane, *busy_kinds)
    ).fetchone()
    if row is None:
        return None
    db.execute(
        "insert into attempts (job, n, started_at) select ?, count(*) + 1, ? from attempts where job = ?",
        (row["id"], now(), row["id"]),
    )
    if lane == _LANE:
        _take(db, job=row["id"])
    return move(db, row["id"], State.RUNNING, progress=None, result=None, error=None, ended_at=None)


def started(db: sqlite3.Connection, job: int, process: tuple[int, int, str]) -> None:
    """``process``: pid, start time, boot id."""
    db.execute(f"update leases set {_PROCESS} where job = ? and released_at is null", (*process, job))


def ended(db: sqlite3.Connection, job: int, reason: str) -> None:
    """A job gives back its lease, if it has one."""
    db.execute(f"update leases set {_RELEASED} where job = ? and released_at is null", (now(), reason, job))


_PROCESS = "pid = ?, pid_starttime = ?, boot_id = ?"
_RELEASED = "released_at = ?, reason = ?"


class Leases:
    """The leases of sessions. ``reserved``: the next one is a session's, no job is to have it, once the jobs' turn is
    over.
    """

    def __init__(self, database: Database, turn: Turn) -> None:
        self._database, self.turn = database, turn
        self.reserved = False

    def keeps_jobs_out(self) -> bool:
        """Heeded in claim()."""
        return self.reserved and not self.turn.left_s

    async def take(self, model: str, insist: bool, pause: bool, instead_of: int | None = None) -> Answer:
        """For a session with ``model``, unless a job has the GPU or, but for ``insist``, is next to have it.

        ``pause``: a job that goes on later is asked to make room, once the jobs' turn is over; a person's wish for its
        end comes first.
        ``instead_of``: the lease of the session before, whose process has ended.
        """

        def take(db: sqlite3.Connection) -> Answer:
            if instead_of is not None:
                _release(db, instead_of, "replaced")
            wait_s = self.turn.left_s
            if (held := _held(db)) is None:
                if (not insist or wait_s) and (job := _next(db)) is not None:
                    return Answer(job=job, leaves=pause and job["kind"] in GOES_ON, after_s=wait_s)
                self.turn.end()
                return Answer(_take(db, model=model))
            job = job_row(db, held["job"])  # of sessions there is only the one that asks
            if pause and job["state"] == State.RUNNING and job["kind"] in GOES_ON:
                asked = job if wait_s else move(db, job["id"], State.PAUSING, yielded=1)
                return Answer(job=asked, leaves=True, after_s=wait_s)
            return Answer(job=job, leaves=pause and job["state"] in (State.PAUSING, State.STOPPING))

        return await self._database.write(take)

    async def started(self, lease: int, process: tuple[int, int, str]) -> None:
        await self._database.write(
            lambda db: db.execute(f"update leases set {_PROCESS} where id = ?", (*process, lease))
        )

    async def release(self, lease: int | None, reason: str) -> None:
        """Give back a session's lease, if it has one, and let the jobs go on that were paused for it."""

        def release(db: sqlite3.Connection) -> None:
            if lease is not None:
                _release(db, lease, reason)
            self._give_back(db, lease is not None)

        await self._database.write(release)

    async def next_job(self) -> Job | None:
        """The job that waits for nothing but the GPU. Raises StoreError."""
        return await self._read(_next)

    async def paused(self) -> list[int]:
        """Jobs that are, or will be, paused for a session. Raises StoreError."""
        return await self._read(
            lambda db: [row["id"] for row in db.execute("select id from jobs where yielded order by id")]
        )

    async def left(self) -> list[Held]:
        """Those that the last daemon had when it died."""
        query = "select id, job, pid, pid_starttime, boot_id from leases where released_at is null"
        return await self._database.read(lambda db: [Held(*row) for row in db.execute(query).fetchall()])

    async def recover(self) -> None:
        """After the processes of the last daemon have been ended and its jobs put in order."""

        def close(db: sqlite3.Connection) -> None:
            db.execute(f"update leases set {_RELEASED} where released_at is null", (now(), "the daemon ended"))
            self._give_back(db, False)

        await self._database.write(close)

    def _give_back(self, db: sqlite3.Connection, had: bool) -> None:
        """Jobs that were paused for a session go on. ``had``: it had the GPU, for which any job may have waited."""
        paused = db.execute("select id from jobs where yielded and state = 'paused' order by id").fetchall()
        for row in paused:
            move(db, row["id"], State.QUEUED, error=None)
        if (paused or had) and _next(db) is not None:
            self.turn.begin()

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Of a session, which goes on though another program has the file locked. Raises StoreError."""
        try:
            return await self._database.read(function)
        except sqlite3.OperationalError as error:
            raise StoreError(f"the database cannot be read: {error}") from error


def _held(db: sqlite3.Connection) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(
        "select id, job from leases where lane = ? and released_at is null", (_LANE,)
    ).fetchone()
    return found


def _next(db: sqlite3.Connection) -> Job | None:
    row = db.execute(f"select id {_NEXT} order by priority desc, id limit 1", (_LANE,)).fetchone()
    return job_row(db, row["id"]) if row else None


def _take(db: sqlite3.Connection, job: int | None = None, model: str | None = None) -> int:
    query = "insert into leases (lane, job, model, taken_at) values (?, ?, ?, ?)"
    lease = int(db.execute(query, (_LANE, job, model, now())).lastrowid or 0)
    db.execute("delete from leases where id <= ?", (lease - _KEPT,))
    return lease


def _release(db: sqlite3.Connection, lease: int, reason: str) -> None:
    db.execute(f"update leases set {_RELEASED} where id = ? and released_at is null", (now(), reason, lease))
