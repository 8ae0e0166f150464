"""Every statement about jobs, their attempts, dependencies and metrics. Artifacts are in ``index.py``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mistudiod.database import Database
from mistudiod.errors import Conflict
from mistudiod.jobs import ENDED, LIVE, State, now
from mistudiod.specs import LANES, MAKES, Spec
from mistudiod.statements import (
    Job,
    as_asked,
    hopeless_need,
    job_row,
    maker,
    marks,
    move,
    refuse_taken,
    require_usable,
    stop_waiting,
    values,
    waits_for,
)


@dataclass(frozen=True)
class Attempt:
    """One run of a job's worker, as it was left."""

    job: int
    n: int
    pid: int | None
    pid_starttime: int | None
    boot_id: str | None


class Jobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, spec: Spec, after: Sequence[int], priority: int) -> Job:
        """Queue a job behind those of ``after``; the name it makes is claimed in the same transaction."""

        def insert(db: sqlite3.Connection) -> Job:
            kind = spec.kind  # type: ignore[attr-defined]
            noun, name = MAKES.get(kind), getattr(spec, "name", None)
            if noun:
                refuse_taken(db, noun, str(name))
            cursor = db.execute(
                "insert into jobs (kind, lane, spec, state, priority, created_at, noun, name) values (?,?,?,?,?,?,?,?)",
                (kind, LANES[kind], spec.model_dump_json(), State.QUEUED.value, priority, now(), noun, name),
            )
            job = int(cursor.lastrowid or 0)
            for needed in sorted(set(after)):
                require_usable(db, needed)
                db.execute("insert into dependencies values (?, ?)", (job, needed))
            return job_row(db, job)

        return await self._database.write(insert)

    async def get(self, job: int) -> Job:
        return await self._database.read(lambda db: job_row(db, job))

    async def newest(self, limit: int = 100, before: int | None = None) -> list[Job]:
        def select(db: sqlite3.Connection) -> list[Job]:
            ids = db.execute("select id from jobs where id < ? order by id desc limit ?", (before or 2**62, limit))
            return [job_row(db, row["id"]) for row in ids.fetchall()]

        return await self._database.read(select)

    async def maker_of(self, noun: str, name: str) -> int | None:
        """The unfinished job that will make an artifact, if there is one."""
        return await self._database.read(lambda db: maker(db, noun, name))

    async def users_of(self, noun: str, name: str, uses: dict[str, dict[str, str]]) -> list[int]:
        """Unfinished jobs whose spec names the artifact."""

        def select(db: sqlite3.Connection) -> list[int]:
            rows = db.execute(f"select id, kind, spec from jobs where state not in ({marks(ENDED)})", values(ENDED))
            return [
                row["id"]
                for row in rows
                if any(n == noun and json.loads(row["spec"])[f] == name for f, n in uses[row["kind"]].items())
            ]

        return await self._database.read(select)

    async def claim(self, lane: str, busy_kinds: Sequence[str]) -> Job | None:
        """Move the next job whose dependencies are done to running, as a new attempt; None when there is none.

        ``busy_kinds``: kinds of which none may start now.
        """

        def take(db: sqlite3.Connection) -> Job | None:
            row = db.execute(
                f"""select id from jobs where state = 'queued' and lane = ?
                    and kind not in ({",".join("?" * len(busy_kinds))})
                    and not exists (select 1 from dependencies d join jobs n on n.id = d.needs
                                    where d.job = jobs.id and n.state != 'done')
                    order by priority desc, id limit 1""",
                (lane, *busy_kinds),
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "insert into attempts (job, n, started_at) select ?, count(*) + 1, ? from attempts where job = ?",
                (row["id"], now(), row["id"]),
            )
            return move(db, row["id"], State.RUNNING, progress=None, result=None, error=None, ended_at=None)

        return await self._database.write(take)

    async def started(self, job: int, pid: int, pid_starttime: int, boot_id: str) -> None:
        await self._database.write(
            lambda db: db.execute(
                "update attempts set pid = ?, pid_starttime = ?, boot_id = ? where job = ? and ended_at is null",
                (pid, pid_starttime, boot_id, job),
            )
        )

    async def move(self, job: int, state: State, **columns: object) -> Job:
        """One legal move and, with it, columns such as ``error`` or ``result``. Raises Conflict for any other."""
        return await self._database.write(lambda db: move(db, job, state, **columns))

    async def stop(self, job: int) -> list[Job]:
        """To stopping when a worker may be at work, else to stopped; decided where no claim can come between.

        Returns the job, then those that waited for it and are stopped with it.
        """

        def stop(db: sqlite3.Connection) -> list[Job]:
            found = job_row(db, job)
            state = State(found["state"])
            if state is State.STOPPING:
                return [found]
            if state in LIVE:
                return [move(db, job, State.STOPPING)]
            return [move(db, job, State.STOPPED), *stop_waiting(db, job)]

        return await self._database.write(stop)

    async def end_attempt(
        self,
        job: int,
        states: Sequence[State],
        exit_code: int | None,
        reason: str,
        checkpoint: int | None,
        **columns: object,
    ) -> list[Job]:
        """Close the open attempt and make the moves, all in one transaction.

        What a person has asked for meanwhile is heeded. Returns the job, then those that are stopped because of it.
        """

        def end(db: sqlite3.Connection) -> list[Job]:
            moves = as_asked(State(job_row(db, job)["state"]), states)
            db.execute(
                "update attempts set ended_at = ?, exit_code = ?, reason = ?, checkpoint = ? "
                "where job = ? and ended_at is null",
                (now(), exit_code, reason, checkpoint, job),
            )
            for state in moves[:-1]:
                move(db, job, state)
            ended = move(db, job, moves[-1], **columns)
            return [ended, *(stop_waiting(db, job) if moves[-1] in ENDED - {State.DONE} else [])]

        return await self._database.write(end)

    async def stalled(self, job: int, checkpoint: int | None) -> int:
        """How many of the last attempts ended, unasked, without getting past ``checkpoint``."""

        def count(db: sqlite3.Connection) -> int:
            rows = db.execute(
                "select checkpoint, reason from attempts where job = ? and ended_at is not null order by n desc", (job,)
            ).fetchall()
            n = 0
            for row in rows:
                if row["checkpoint"] != checkpoint or row["reason"] in ("stopped", "paused"):
                    break
                n += 1
            return n

        return await self._database.read(count)

    async def retry(self, job: int) -> list[Job]:
        """Queue an ended or paused job again, and those that were stopped only because of it."""

        def again(db: sqlite3.Connection) -> list[Job]:
            back, queue = [], [job]
            while queue:
                one = queue.pop()
                try:
                    back.append(_queue_again(db, one))
                except Conflict as conflict:
                    if one == job:
                        raise
                    needed = hopeless_need(db, one)
                    error = waits_for(db, needed) if needed else conflict.body()["error"]
                    db.execute("update jobs set error = ? where id = ?", (json.dumps(error), one))
                    back.append(job_row(db, one))
                    continue
                waiting = db.execute(
                    "select id from jobs where state = 'stopped' and json_extract(error, '$.job') = ?", (one,)
                )
                queue.extend(r["id"] for r in waiting.fetchall())
            return back

        return await self._database.write(again)

    async def remove(self, job: int) -> None:
        def delete(db: sqlite3.Connection) -> None:
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

        await self._database.write(delete)

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

    async def in_state(self, state: State) -> list[int]:
        return await self._database.read(
            lambda db: [r["id"] for r in db.execute("select id from jobs where state = ?", (state.value,)).fetchall()]
        )

    async def record(
        self, job: int, progress: dict[str, Any] | None, result: dict[str, Any] | None, metrics: list[tuple[int, str]]
    ) -> None:
        """What a worker has said since the last time, in one transaction."""

        def write(db: sqlite3.Connection) -> None:
            if progress is not None:
                db.execute("update jobs set progress = ? where id = ?", (json.dumps(progress), job))
            if result is not None:
                db.execute("update jobs set result = ? where id = ?", (json.dumps(result), job))
            db.executemany("insert or replace into metrics values (?, ?, ?)", [(job, s, v) for s, v in metrics])

        await self._database.write(write)

    async def metrics(self, job: int, after_step: int, limit: int) -> list[dict[str, Any]]:
        def select(db: sqlite3.Connection) -> list[dict[str, Any]]:
            job_row(db, job)
            rows = db.execute(
                'select step, "values" from metrics where job = ? and step > ? order by step limit ?',
                (job, after_step, limit),
            )
            return [{"step": row[0], "values": json.loads(row[1])} for row in rows.fetchall()]

        return await self._database.read(select)


def _queue_again(db: sqlite3.Connection, job: int) -> Job:
    """Raises Conflict when its name has been taken meanwhile, or it waits for a job that will not be done."""
    row = job_row(db, job)
    if row["makes"] and State(row["state"]) in ENDED:
        refuse_taken(db, row["makes"]["noun"], row["makes"]["name"], besides=job)
    if needed := hopeless_need(db, job):
        raise Conflict(f"job {job} waits for job {needed}, which will not be done; retry job {needed}")
    return move(db, job, State.QUEUED, error=None, ended_at=None, progress=None)
