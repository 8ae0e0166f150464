"""The statements that several of the store's transactions share; each runs inside one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from mistudiod.database import tell
from mistudiod.errors import Conflict, NotFound
from mistudiod.jobs import ENDED, State, may_move, now

Job = dict[str, Any]
_KEY_KEPT = timedelta(days=1)


def job_row(db: sqlite3.Connection, job: int) -> Job:
    row = db.execute("select * from jobs where id = ?", (job,)).fetchone()
    if row is None:
        raise NotFound(f"there is no job {job}")
    after = db.execute("select needs from dependencies where job = ? order by needs", (job,)).fetchall()
    attempts = db.execute("select count(*) from attempts where job = ?", (job,)).fetchone()[0]
    return {
        **{k: row[k] for k in ("id", "kind", "lane", "state", "priority", "created_at", "started_at", "ended_at")},
        **{k: json.loads(row[k]) if row[k] else None for k in ("spec", "plan", "progress", "result", "error")},
        "attempts": attempts,
        "after": [r["needs"] for r in after],
        "makes": {"noun": row["noun"], "name": row["name"]} if row["noun"] else None,
    }


def move(db: sqlite3.Connection, job: int, state: State, **columns: object) -> Job:
    old = State(job_row(db, job)["state"])
    if not may_move(old, state):
        raise Conflict(f"job {job} is {old.value} and cannot become {state.value}")
    columns["state"] = state.value
    if state is State.RUNNING:
        columns["started_at"] = now()
    if state in ENDED:
        columns["ended_at"] = now()
    texts = [json.dumps(v) if isinstance(v, dict) else v for v in columns.values()]
    db.execute(f"update jobs set {', '.join(f'{c} = ?' for c in columns)} where id = ?", (*texts, job))
    return told(db, job)


def told(db: sqlite3.Connection, job: int) -> Job:
    """The job as it is now, which readers are told of."""
    row = job_row(db, job)
    tell(db, "job", row)
    return row


def maker(db: sqlite3.Connection, noun: str, name: str, besides: int = 0) -> int | None:
    row = db.execute(
        f"select id from jobs where noun = ? and lower(name) = lower(?) and id != ? and state not in ({marks(ENDED)})",
        (noun, name, besides, *values(ENDED)),
    ).fetchone()
    return row["id"] if row else None


def refuse_taken(db: sqlite3.Connection, noun: str, name: str, besides: int = 0) -> None:
    if job := maker(db, noun, name, besides):
        raise Conflict(f"job {job} is making a {noun} named {name!r}; choose another name", {"name": "is being made"})
    # Case is ignored: the names are folders, and some file systems ignore it too.
    row = db.execute(
        "select job from artifacts where noun = ? and lower(name) = lower(?) and job is not ?", (noun, name, besides)
    ).fetchone()
    if row:
        raise Conflict(
            f"there is a {noun} named {name!r} already; choose another name or remove that one", {"name": "is taken"}
        )


def require_usable(db: sqlite3.Connection, needed: int) -> None:
    row = db.execute("select state from jobs where id = ?", (needed,)).fetchone()
    if row is None:
        raise NotFound(f"there is no job {needed} to wait for", {"after": f"no job {needed}"})
    if State(row["state"]) in ENDED - {State.DONE}:
        raise Conflict(f"job {needed} is {row['state']}; nothing can wait for it", {"after": f"job {needed} is over"})


def as_asked(was: State, states: Sequence[State]) -> Sequence[State]:
    """Where an attempt's end leads when a person has asked for something meanwhile: it is never queued again then."""
    if was is State.STOPPING and states[-1] in (State.QUEUED, State.PAUSED, State.INTERRUPTED):
        return [State.STOPPED]
    if was is State.PAUSING and states[-1] in (State.QUEUED, State.INTERRUPTED):
        return [State.PAUSED]
    return states


def stop_waiting(db: sqlite3.Connection, failed: int) -> None:
    """Stop, with the reason, every queued job that waits for a job that will not be done."""
    queue = [failed]
    while queue:
        needed = queue.pop()
        rows = db.execute(
            "select id from jobs join dependencies on job = id where needs = ? and state = 'queued'", (needed,)
        ).fetchall()
        for row in rows:
            move(db, row["id"], State.STOPPED, error=waits_for(db, needed))
            queue.append(row["id"])


def waits_for(db: sqlite3.Connection, needed: int) -> dict[str, Any]:
    row = db.execute("select state, kind from jobs where id = ?", (needed,)).fetchone()
    message = (
        f"job {needed} ({row['kind']}), which this job waits for, is {row['state']}; "
        f"retry job {needed} and this one is queued again"
    )
    return {"code": "dependency", "message": message, "job": needed}


def hopeless_need(db: sqlite3.Connection, job: int) -> int | None:
    """A job that this one waits for and that will not be done, if there is one."""
    row = db.execute(
        "select n.id from dependencies d join jobs n on n.id = d.needs "
        "where d.job = ? and n.state in ('failed', 'stopped', 'partial') order by n.id limit 1",
        (job,),
    ).fetchone()
    return row["id"] if row else None


def stopped_with(db: sqlite3.Connection, job: int) -> list[int]:
    """Jobs that were stopped only because they waited for this one."""
    query = "select id from jobs where state = 'stopped' and json_extract(error, '$.job') = ?"
    return [row["id"] for row in db.execute(query, (job,)).fetchall()]


def queue_again(db: sqlite3.Connection, job: int) -> Job:
    """Raises Conflict when its name has been taken meanwhile, or it waits for a job that will not be done."""
    row = job_row(db, job)
    if row["makes"] and State(row["state"]) in ENDED:
        refuse_taken(db, row["makes"]["noun"], row["makes"]["name"], besides=job)
    if needed := hopeless_need(db, job):
        raise Conflict(f"job {job} waits for job {needed}, which will not be done; retry job {needed}")
    # Three more restarts for want of memory; what a checkpoint hangs on stays as it was chosen.
    db.execute("update jobs set plan = json_set(plan, '$.restarts', 0) where id = ?", (job,))
    return move(db, job, State.QUEUED, error=None, ended_at=None, progress=None)


def retry(db: sqlite3.Connection, job: int) -> Job:
    """Queue an ended job again, and those that were stopped only because of it. Raises Conflict."""
    state = job_row(db, job)["state"]
    if State(state) not in ENDED - {State.DONE}:
        raise Conflict(f"job {job} is {state}; only a failed or stopped job can be retried")
    found = queue_again(db, job)
    queue = stopped_with(db, job)
    while queue:
        one = queue.pop()
        try:
            queue_again(db, one)
        except Conflict as conflict:
            needed = hopeless_need(db, one)
            error = waits_for(db, needed) if needed else conflict.body()["error"]
            db.execute("update jobs set error = ? where id = ?", (json.dumps(error), one))
            told(db, one)
        else:
            queue += stopped_with(db, one)
    return found


class Key(NamedTuple):
    """What makes a repeated request one: the caller's Idempotency-Key, and the hash of what it asks for."""

    text: str
    body_hash: str


def known_under(db: sqlite3.Connection, key: Key) -> Job | None:
    """The job that the same request has made under ``key``. Raises Conflict when another request has used it."""
    row = db.execute("select body_hash, job from keys where key = ?", (key.text,)).fetchone()
    if row is None:
        return None
    if row["body_hash"] != key.body_hash:
        raise Conflict(f"another request has used this Idempotency-Key (it made job {row['job']}); take a new one")
    return job_row(db, row["job"])


def keep_key(db: sqlite3.Connection, key: Key, job: int) -> None:
    """For a day: a client that has waited longer for its answer has given up."""
    at = datetime.now(timezone.utc)
    db.execute("delete from keys where created_at < ?", ((at - _KEY_KEPT).isoformat(),))
    db.execute("insert into keys values (?, ?, ?, ?)", (*key, at.isoformat(), job))


def record(
    db: sqlite3.Connection,
    job: int,
    progress: dict[str, Any] | None,
    result: dict[str, Any] | None,
    metrics: list[tuple[int, str]],
) -> None:
    if progress is not None:
        db.execute("update jobs set progress = ? where id = ?", (json.dumps(progress), job))
    if result is not None:
        db.execute("update jobs set result = ? where id = ?", (json.dumps(result), job))
    db.executemany("insert or replace into metrics values (?, ?, ?)", [(job, s, v) for s, v in metrics])


def metrics_after(db: sqlite3.Connection, job: int, after_step: int, limit: int) -> list[dict[str, Any]]:
    """Raises NotFound when there is no such job."""
    job_row(db, job)
    rows = db.execute(
        'select step, "values" from metrics where job = ? and step > ? order by step limit ?', (job, after_step, limit)
    )
    return [{"step": row[0], "values": json.loads(row[1])} for row in rows.fetchall()]


def marks(states: frozenset[State]) -> str:
    return ",".join("?" * len(states))


def values(states: frozenset[State]) -> list[str]:
    return sorted(state.value for state in states)
