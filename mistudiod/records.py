"""What a job leaves in its run folder, so that a lost database can be written again: job.json and metrics.jsonl."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mistudiod.database import Database
from mistudiod.errors import StoreError
from mistudiod.index import read_json
from mistudiod.paths import Paths, sync, write_whole
from mistudiod.readings import Metric, metrics_of
from mistudiod.restoring import AT_REST, IN_SPEC, METRICS, RECORD, SPEC, read_records, restore
from mistudiod.statements import Job, job_row

GIVEN, USED = "given.json", "used.json"
log = logging.getLogger("mistudiod.records")


class Records:
    """Keeps the records in step with the database.

    ``heard()`` is told of every state of a job, ``run()`` writes what is due in the background, and ``rebuild()``
    makes both sides whole at the start.
    """

    def __init__(self, database: Database, paths: Paths) -> None:
        self._database, self._paths = database, paths
        self._due: set[int] = set()
        self._wake, self._writing = asyncio.Event(), asyncio.Lock()

    def heard(self, topic: str, data: dict[str, Any]) -> None:
        if topic == "job" and data.get("state") in AT_REST:
            self._due.add(data["id"])
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled; ``flush()`` then writes the rest."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write every record that is due; those that are being written are there as well when it returns.

        What cannot be written is logged, and tried again at the next start.
        """
        async with self._writing:
            while self._due:
                job = self._due.pop()
                try:
                    await self._write(job)
                except (OSError, StoreError) as error:
                    log.warning("the record of job %s cannot be written; it is at the next start: %s", job, error)
                except asyncio.CancelledError:
                    self._due.add(job)
                    raise

    async def rebuild(self) -> int:
        """Bring back the jobs that the database does not have, after the index of artifacts; returns how many.

        Records that are missing, or of an earlier rest, become due.
        """
        known = await self._database.read(lambda db: {row["id"] for row in db.execute("select id from jobs")})
        runs = self._paths.data / "runs"
        found, highest = await asyncio.to_thread(read_records, runs, known)
        restored = await self._database.write(lambda db: restore(db, runs, found, highest))
        query = f"select id, state from jobs where state in ({','.join('?' * len(AT_REST))})"
        over = await self._database.read(lambda db: dict(map(tuple, db.execute(query, sorted(AT_REST)).fetchall())))
        self._due |= set(await asyncio.to_thread(self._without_record, over))
        self._wake.set()
        return restored

    async def _write(self, job: int) -> None:
        run = self._paths.run(job)
        await self._database.read(lambda db: write_metrics(run, metrics_of(db, job)))
        # In the writer's thread: no removal of the job comes between, which the folder would outlive.
        await self._database.write(lambda db: _write_if_at_rest(db, run, job))

    def _without_record(self, states: dict[int, str]) -> list[int]:
        return [job for job, state in states.items() if _state_in(self._paths.run(job) / RECORD) != state]


def begin_run(run: Path, data: Path, job: Job, choices: Mapping[str, object]) -> None:
    """Write what the worker reads, its plan's ``choices`` too.

    ``finalize`` among it says whether a training is only to come to its end. It is also what is left of the job should
    the database be lost meanwhile.
    """
    _make(run)
    (run / RECORD).unlink(missing_ok=True)  # it is not at rest any more
    kept = {name: job[name] for name in IN_SPEC}
    order = {"job": job["id"], "data": str(data), "spec": job["spec"], "choices": choices, **kept}
    write_whole(run / SPEC, [json.dumps(order, indent=1)])


def write_given(run: Path, given: Mapping[str, object]) -> None:
    """What is left to do of a job of labels, or which it publishes. Atomic and durable; raises OSError."""
    write_whole(run / GIVEN, [json.dumps(given)])


def read_used(run: Path) -> dict[str, int]:
    """What the questions of a job have used in all its workers, as they keep it; failures and tries count too."""
    try:
        found = json.loads((run / USED).read_text(encoding="utf-8"))
        used = {name: found[name] for name in ("prompt_tokens", "answer_tokens")}
    except (OSError, ValueError, LookupError, TypeError):
        used = {}
    if len(used) == 2 and all(type(count) is int and count >= 0 for count in used.values()):
        return used
    return {"prompt_tokens": 0, "answer_tokens": 0}


def write_record(run: Path, job: Job) -> None:
    """``job`` as the API shows it. Atomic and durable; raises OSError."""
    _make(run)
    write_whole(run / RECORD, [json.dumps(job, indent=1)])


def write_metrics(run: Path, metrics: Iterable[Metric]) -> None:
    """A line for each; without any there is no file. Atomic and durable; raises OSError."""
    metrics = iter(metrics)
    first = next(metrics, None)
    if first is None:
        (run / METRICS).unlink(missing_ok=True)
    elif run.is_dir():  # no folder is made here: one that was just removed must not come back
        lines = map(_line, itertools.chain([first], metrics))
        write_whole(run / METRICS, lines)


def _line(metric: Metric) -> str:
    return f'{{"step": {metric.step}, "sae": {json.dumps(metric.sae or None)}, "values": {metric.values}}}\n'


def _state_in(record: Path) -> str | None:
    try:
        found = read_json(record)
    except (OSError, ValueError):
        return None
    return found.get("state") if isinstance(found, dict) else None


def _write_if_at_rest(db: sqlite3.Connection, run: Path, job: int) -> None:
    row = db.execute("select state from jobs where id = ?", (job,)).fetchone()
    if row is not None and row["state"] in AT_REST:
        write_record(run, job_row(db, job))


def _make(run: Path) -> None:
    if not run.is_dir():
        run.mkdir(parents=True, exist_ok=True)
        sync(run.parent)
