"""Every statement about jobs, their attempts, dependencies and metrics. Artifacts are in ``index.py``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudiod import leases
from mistudiod.database import Database, tell
from mistudiod.errors import Conflict
from mistudiod.jobs import ENDED, LIVE, State, now
from mistudiod.label_statements import Found
from mistudiod.readings import Live, Metric, live_of, metrics_page, record
from mistudiod.specs import LANES, MAKES, JobRequest, names_made
from mistudiod.statements import (
    Job,
    Key,
    add_job,
    as_asked,
    claim_names,
    edit,
    finalize,
    job_row,
    keep_key,
    known_under,
    maker,
    marks,
    move,
    refuse_taken,
    require_usable,
    resume,
    retry,
    stalled,
    stop_waiting,
    told,
    values,
)
from mistudiod.turn import Turn
from mistudiod.users import users


@dataclass(frozen=True)
class Attempt:
    """One run of a job's worker, as it was left."""

    job: int
    n: int
    pid: int | None
    pid_starttime: int | None
    boot_id: str | None


class Jobs:
    def __init__(self, database: Database, turn: Turn) -> None:
        """``turn``: it ends when a job that had the GPU has ended, or is paused."""
        self._database, self._turn = database, turn

    async def submitted(self, key: Key) -> Job | None:
        """The job that the same request has made under ``key``. Raises Conflict when another request has used it."""
        return await self._database.read(lambda db: known_under(db, key))

    async def add(
        self, request: JobRequest, after: Sequence[int], key: Key | None = None, lane: str | None = None
    ) -> tuple[Job, bool]:
        """Queue a job behind those of ``after``; the names of what it makes are claimed in the same transaction.

        ``lane``: when it is not that of its kind. With a ``key`` that the same request has used: the job it made, and
        False.
        """

        def insert(db: sqlite3.Connection) -> tuple[Job, bool]:
            if key and (known := known_under(db, key)):
                return known, False
            spec, kind = request.spec, request.spec.kind
            names = names_made(spec)
            if names:
                refuse_taken(db, MAKES[kind], names)
            job = add_job(db, (kind, lane or LANES[kind], spec.model_dump_json(), request.priority))
            if names:
                claim_names(db, job, MAKES[kind], names)
            for needed in sorted(set(after)):
                require_usable(db, needed)
                db.execute("insert into dependencies values (?, ?)", (job, needed))
            if key:
                keep_key(db, key, job)
            return told(db, job), True

        return await self._database.write(insert)

    async def get(self, job: int) -> Job:
        return await self._database.read(lambda db: job_row(db, job))

    async def newest(self, limit: int, before: int = 2**62, state: State | None = None) -> list[Job]:
        def select(db: sqlite3.Connection) -> list[Job]:
            query = "select id from jobs where id < ? and (? is null or state = ?) order by id desc limit ?"
            wanted = state.value if state else None
            return [job_row(db, row["id"]) for row in db.execute(query, (before, wanted, wanted, limit)).fetchall()]

        return await self._database.read(select)

    async def maker_of(self, noun: str, name: str) -> int | None:
        """The unfinished job that will make an artifact, if there is one."""
        return await self._database.read(lambda db: maker(db, noun, name))

    async def users_of(self, noun: str, name: str, kinds: Collection[str] | None = None) -> list[int]:
        """Unfinished jobs, of some kinds or of any, whose spec names the artifact."""

        return await self._database.read(lambda db: users(db, noun, name, kinds))

    async def claim(
        self, lane: str, busy_kinds: Sequence[str], reserved: Callable[[], bool] = lambda: False
    ) -> Job | None:
        """Move the next job to running, as a new attempt that has the lease if it takes the GPU; None: there is none.

        ``busy_kinds``: kinds of which none may start now. ``reserved``: whether the GPU is a session's next.
        """
        return await self._database.write(lambda db: leases.claim(db, lane, busy_kinds, reserved))

    async def started(self, job: int, pid: int, pid_starttime: int, boot_id: str) -> None:
        process = (pid, pid_starttime, boot_id)

        def write(db: sqlite3.Connection) -> None:
            query = "update attempts set pid = ?, pid_starttime = ?, boot_id = ? where job = ? and ended_at is null"
            db.execute(query, (*process, job))
            leases.started(db, job, process)

        await self._database.write(write)

    async def planned(self, job: int, plan: dict[str, Any] | None) -> Job:
        """Write down what a job is expected to take."""

        def write(db: sqlite3.Connection) -> Job:
            db.execute("update jobs set plan = ? where id = ?", (json.dumps(plan) if plan else None, job))
            return told(db, job)

        return await self._database.write(write)

    async def move(self, job: int, state: State, **columns: object) -> Job:
        """One legal move and, with it, columns such as ``error`` or ``result``. Raises Conflict for any other."""
        return await self._database.write(lambda db: move(db, job, state, **columns))

    async def stop(self, job: int) -> Job:
        """To stopping when a worker may be at work, else to stopped; decided where no claim can come between.

        Those that waited for it are stopped with it.
        """

        def stop(db: sqlite3.Connection) -> Job:
            found = job_row(db, job)
            state = State(found["state"])
            if state is State.STOPPING:
                return found
            if state in LIVE:
                return move(db, job, State.STOPPING)
            stopped = move(db, job, State.STOPPED)
            stop_waiting(db, job)
            return stopped

        return await self._database.write(stop)

    async def end_attempt(
        self,
        job: int,
        states: Sequence[State],
        exit_code: int | None,
        reason: str,
        checkpoint: int | None,
        **columns: object,
    ) -> Job:
        """Close the open attempt, give back its lease and make the moves, all in one transaction.

        What a person has asked for meanwhile is heeded. Those that wait for what will not be done are stopped.
        """

        def end(db: sqlite3.Connection) -> Job:
            moves = as_asked(State(job_row(db, job)["state"]), states)
            db.execute(
                "update attempts set ended_at = ?, exit_code = ?, reason = ?, checkpoint = ? "
                "where job = ? and ended_at is null",
                (now(), exit_code, reason, checkpoint, job),
            )
            leases.ended(db, job, reason)
            for state in moves[:-1]:
                move(db, job, state)
            if moves[-1] is State.PAUSED and columns.get("error"):  # a person must see to that first
                columns["yielded"] = 0
            ended = move(db, job, moves[-1], **columns)
            if moves[-1] in ENDED - {State.DONE}:
                stop_waiting(db, job)
            if moves[-1] is not State.QUEUED and ended["lane"] == "gpu":
                self._turn.end()
            return ended

        return await self._database.write(end)

    async def stalled(self, job: int, checkpoint: int | None) -> int:
        """How many of the last attempts ended, unasked, without getting past ``checkpoint``."""
        return await self._database.read(lambda db: stalled(db, job, checkpoint))

    async def resume(self, job: int) -> Job:
        """Queue a paused job again. Raises Conflict for any other, and TooMany."""
        return await self._database.write(lambda db: resume(db, job))

    async def retry(self, job: int) -> Job:
        """Queue an ended job again, and those that were stopped only because of it. Raises Conflict, TooMany."""
        return await self._database.write(lambda db: retry(db, job))

    async def finalize(self, job: int, trained: bool) -> Job:
        """Let a training end now, and well. ``trained``: it has a checkpoint. Raises Conflict."""
        return await self._database.write(lambda db: finalize(db, job, trained))

    async def edit(self, job: int, priority: int, unless: Callable[[Job], bool]) -> Job:
        """Give a queued job another priority. Raises Changed when ``unless`` says so of the job as it is."""
        return await self._database.write(lambda db: edit(db, job, priority, unless))

    async def remove(self, job: int, set_aside: Callable[[], Path | None]) -> Path | None:
        """Delete an ended job for which nothing waits. ``set_aside`` takes its folder away first, and is returned."""

        def delete(db: sqlite3.Connection) -> Path | None:
            found = job_row(db, job)
            if State(found["state"]) not in ENDED:
                raise Conflict(f"job {job} is {found['state']}; stop it before you remove it")
            waiting = db.execute(
                f"select job from dependencies join jobs on id = job where needs = ? and state not in ({marks(ENDED)})",
                (job, *values(ENDED)),
            ).fetchone()
            if waiting:
                raise Conflict(f"job {waiting['job']} waits for job {job}; remove that one first")
            db.execute("delete from jobs where id = ?", (job,))
            tell(db, "job", {"id": job, "removed": True})
            return set_aside()  # last: a folder that stays would bring the job back

        return await self._database.write(delete)

    async def unfinished(self) -> list[Attempt]:
        """Open attempts of jobs that were live when the daemon last died."""

        def select(db: sqlite3.Connection) -> list[Attempt]:
            rows = db.execute(
                f"""select job, n, pid, pid_starttime, boot_id from attempts join jobs on id = job
                    where attempts.ended_at is null and state in ({marks(LIVE)})""",
                values(LIVE),
            )
            return [Attempt(*row) for row in rows.fetchall()]

        return await self._database.read(select)

    async def at_work(self) -> list[Job]:
        """The jobs that have a worker, those of the GPU first."""
        query = f"select id from jobs where state in ({marks(LIVE)}) order by lane = 'gpu' desc, id"
        return await self._database.read(
            lambda db: [job_row(db, row["id"]) for row in db.execute(query, values(LIVE)).fetchall()]
        )

    async def in_state(self, *states: State) -> list[int]:
        """Jobs that are in one of these states. One question for all of them: between two a job may move on."""
        query = f"select id from jobs where state in ({marks(frozenset(states))}) order by id"
        return await self._database.read(
            lambda db: [row["id"] for row in db.execute(query, values(frozenset(states))).fetchall()]
        )

    async def counts(self) -> dict[tuple[str, str, str], int]:
        """How many jobs there are, by lane, kind and state."""
        query = "select lane, kind, state, count(*) from jobs group by 1, 2, 3"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        return {(lane, kind, state): count for lane, kind, state, count in rows}

    async def record(
        self,
        job: int,
        progress: dict[str, Any] | None,
        result: dict[str, Any] | None,
        metrics: Iterable[Metric],
        live: Iterable[Live] = (),
        found: Found | None = None,
    ) -> None:
        """What a worker has said since the last time, in one transaction."""
        await self._database.write(lambda db: record(db, job, progress, result, metrics, live, found))

    async def metrics(self, job: int, after_step: int, limit: int, sae: str | None = None) -> dict[str, Any]:
        return await self._database.read(lambda db: metrics_page(db, job, after_step, limit, sae))

    async def live(self, job: int) -> list[dict[str, Any]]:
        return await self._database.read(lambda db: live_of(db, job))
