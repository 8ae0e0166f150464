"""The jobs of a database out of a backup: what has happened to them since, and what nobody is at any more."""

from __future__ import annotations

import json
import secrets
import sqlite3
from pathlib import Path

from mistudiod.index import read_object
from mistudiod.jobs import now
from mistudiod.restoring import AT_REST, RECORD
from mistudiod.statements import marks, values


def settle(db: sqlite3.Connection, runs: Path, made_at: str) -> int:
    """In one transaction; returns how many jobs had not come to their end, and are stopped.

    A job whose run folder knows better is forgotten here: the next start reads it from there. Nothing goes on by
    itself: a training without its checkpoints would begin anew.
    """
    message = f"the studio was restored from a backup of {made_at}, and with it how this job went; retry to do it again"
    error, at = json.dumps({"code": "restored", "message": message}), now()
    db.execute("begin immediate")
    try:
        rows = db.execute("select id, state, ended_at from jobs").fetchall()
        newer = [(id,) for id, state, ended_at in rows if _is_newer(runs / str(id) / RECORD, state, ended_at)]
        db.executemany("delete from jobs where id = ?", newer)
        unfinished = f"state not in ({marks(AT_REST)})"
        stopped = db.execute(
            f"update jobs set state = 'stopped', ended_at = ?, error = ? where {unfinished}",
            (at, error, *values(AT_REST)),
        ).rowcount
        db.execute("update jobs set yielded = 0")
        db.execute("update attempts set ended_at = ?, reason = 'restored' where ended_at is null", (at,))
        db.execute("update leases set released_at = ?, reason = 'restored' where released_at is null", (at,))
        # A reader that has heard of what came after the backup must not take other events for those.
        db.execute(
            "update sqlite_sequence set seq = seq + ? where name = 'events'", (2**20 + secrets.randbelow(2**30),)
        )
        db.execute("commit")
    except BaseException:
        db.execute("rollback")
        raise
    return stopped


def _is_newer(record: Path, state: str, ended_at: str | None) -> bool:
    found = read_object(record)
    return found is not None and (found.get("state"), found.get("ended_at")) != (state, ended_at)
