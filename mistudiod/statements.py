"""The statements that several of the store's transactions share; each runs inside one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from mistudiod.database import tell
from mistudiod.errors import Changed, Conflict, NotFound, TooMany
from mistudiod.jobs import ENDED, State, may_move, now

Job = dict[str, Any]
MOST_QUEUED = 1000  # jobs
_KEY_KEPT = timedelta(days=1)
# Reasons for which an attempt ended in order.
_NOT_DYING = ("stopped", "paused", "restored", "out of memory", "held")
_FINALIZED_FROM = (State.RUNNING, State.PAUSED, State.STOPPED, State.FAILED)


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
        "makes": _makes(db, job),
        "finalize": bool(row["finalize"]),
        "yielded": bool(row["yielded"]),
    }


def _makes(db: sqlite3.Connection, job: int) -> dict[str, Any] | None:
    rows = db.execute("select noun, name from makes where job = ? order by n", (job,)).fetchall()
    names = [row["name"] for row in rows]
    return {"noun": rows[0]["noun"], "name": names[0], "names": names} if rows else None


def claim_names(db: sqlite3.Connection, job: int, noun: str, names: Sequence[str]) -> None:
    db.executemany("insert into makes values (?, ?, ?, ?)", [(job, n, noun, name) for n, name in enumerate(names)])


def add_job(db: sqlite3.Connection, about: Sequence[object]) -> int:
    """``about``: kind, lane, spec as JSON, priority. Raises TooMany."""
    require_room(db)
    query = "insert into jobs (kind, lane, spec, priority, state, created_at) values (?, ?, ?, ?, ?, ?)"
    return int(db.execute(query, (*about, State.QUEUED.value, now())).lastrowid or 0)


def require_room(db: sqlite3.Connection) -> None:
    """Raises TooMany when as many jobs wait as may, so that whoever floods the queue fills neither disk nor memory."""
    waiting = db.execute("select count(*) from jobs where state = ?", (State.QUEUED.value,)).fetchone()[0]
    if waiting >= MOST_QUEUED:
        raise TooMany(f"{MOST_QUEUED:,} jobs are queued already: let some end, or stop some, then try again")


def move(db: sqlite3.Connection, job: int, state: State, **columns: object) -> Job:
    old = State(job_row(db, job)["state"])
    if not may_move(old, state):
        raise Conflict(f"job {job} is {old.value} and cannot become {state.value}")
    columns["state"] = state.value
    if state not in (State.PAUSING, State.PAUSED):
        columns["yielded"] = 0  # it has ended, or goes on: a session has nothing to give back
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
    """The unfinished job that will make it; the case of a name is ignored."""
    row = db.execute(
        f"select job from makes join jobs on id = job where makes.noun = ? and makes.name = ? and job != ? "
        f"and state not in ({marks(ENDED)})",
        (noun, name, besides, *values(ENDED)),
    ).fetchone()
    return row["job"] if row else None


def refuse_taken(db: sqlite3.Connection, noun: str, names: Sequence[str], besides: int = 0) -> None:
    """Raises Conflict for the first of the names that is not to be had."""
    if len({name.lower() for name in names}) < len(names):
        raise Conflict("two of the SAEs would have the same name: ask for fewer of them", {"name": "comes twice"})
    for name in names:
        _refuse_taken(db, noun, name, besides)


def _refuse_taken(db: sqlite3.Connection, noun: str, name: str, besides: int) -> None:
    one = "an SAE" if noun == "sae" else f"a {noun}"
    if job := maker(db, noun, name, besides):
        raise Conflict(f"job {job} is making {one} named {name!r}; choose another name", {"name": "is being made"})
    # Case is ignored: the names are folders, and some file systems ignore it too.
    row = db.execute(
        "select job from artifacts where noun = ? and lower(name) = lower(?) and job is not ?", (noun, name, besides)
    ).fetchone()
    if row:
        raise Conflict(
            f"there is {one} named {name!r} already; choose another name or remove that one", {"name": "is taken"}
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
    if was is State.PAUSING and states[-1] in (State.QUEUED, State.INTERRUPTED, State.PAUSED):
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


def queue_again(db: sqlite3.Connection, job: int, finalize: bool = False) -> Job:
    """``finalize``: only to end it well.

    Raises Conflict when its name has been taken meanwhile, or it waits for a job that will not be done, and TooMany.
    """
    require_room(db)
    row = job_row(db, job)
    if row["makes"] and State(row["state"]) in ENDED:
        refuse_taken(db, row["makes"]["noun"], row["makes"]["names"], besides=job)
    if needed := hopeless_need(db, job):
        raise Conflict(f"job {job} waits for job {needed}, which will not be done; retry job {needed}")
    # Three more restarts for want of memory; what a checkpoint hangs on stays as it was chosen.
    db.execute("update jobs set plan = json_set(plan, '$.restarts', 0) where id = ?", (job,))
    return move(db, job, State.QUEUED, error=None, ended_at=None, progress=None, finalize=finalize)


def resume(db: sqlite3.Connection, job: int) -> Job:
    found = job_row(db, job)
    if found["state"] != State.PAUSED:
        raise Conflict(f"job {job} is {found['state']}, not paused")
    require_room(db)
    return move(db, job, State.QUEUED, error=None, finalize=False)


def retry(db: sqlite3.Connection, job: int, finalize: bool = False) -> Job:
    """Queue an ended job again, and those that were stopped only because of it. Raises Conflict, TooMany."""
    state = job_row(db, job)["state"]
    if State(state) not in ENDED - {State.DONE}:
        raise Conflict(f"job {job} is {state}; only a failed or stopped job can be retried")
    found = queue_again(db, job, finalize)
    queue = stopped_with(db, job)
    while queue:
        one = queue.pop()
        try:
            queue_again(db, one)
        except (Conflict, TooMany) as refused:
            needed = hopeless_need(db, one)
            error = waits_for(db, needed) if needed else refused.body()["error"]
            db.execute("update jobs set error = ? where id = ?", (json.dumps(error), one))
            told(db, one)
        else:
            queue += stopped_with(db, one)
    return found


def finalize(db: sqlite3.Connection, job: int, trained: bool) -> Job:
    """Let a training end now, and well: one that runs is told, one that does not is queued again for that.

    ``trained``: it has a checkpoint. Raises Conflict when nothing has been trained, or it can come to no such end, and
    TooMany.
    """
    found = job_row(db, job)
    state = State(found["state"])
    if found["kind"] != "train":
        raise Conflict(f"job {job} is no training: there is nothing to finalize")
    if state not in _FINALIZED_FROM:
        raise Conflict(
            f"job {job} is {state.value}; it can be finalized while it runs, or once it has paused or stopped"
        )
    measured = db.execute("select 1 from metrics where job = ? limit 1", (job,)).fetchone()
    if not (trained or (state is State.RUNNING and measured)):
        raise Conflict(f"job {job} has trained nothing yet: there is nothing to finalize")
    if state is State.RUNNING:
        db.execute("update jobs set finalize = 1 where id = ?", (job,))
        return told(db, job)
    if state is State.PAUSED:
        return queue_again(db, job, finalize=True)
    return retry(db, job, finalize=True)


def stalled(db: sqlite3.Connection, job: int, checkpoint: int | None) -> int:
    """How many of the last attempts ended, unasked, without getting past ``checkpoint``."""
    rows = db.execute(
        "select checkpoint, reason from attempts where job = ? and ended_at is not null order by n desc", (job,)
    ).fetchall()
    n = 0
    for row in rows:
        if row["checkpoint"] != checkpoint or row["reason"] in _NOT_DYING:
            break
        n += 1
    return n


def edit(db: sqlite3.Connection, job: int, priority: int, unless: Callable[[Job], bool]) -> Job:
    """Give a queued job another priority. Raises Changed when ``unless`` says so of the job as it is."""
    found = job_row(db, job)
    if unless(found):
        raise Changed(f"job {job} has changed since you looked at it; look again")
    if found["state"] != State.QUEUED:
        raise Conflict(f"job {job} is {found['state']}; only a queued job has a priority to change")
    db.execute("update jobs set priority = ? where id = ?", (priority, job))
    return told(db, job)


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


def marks(states: frozenset[State]) -> str:
    return ",".join("?" * len(states))


def values(states: frozenset[State]) -> list[str]:
    return sorted(state.value for state in states)
