"""What a worker measures on its way, in the database: progress, metrics of each SAE, what each is learning."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mistudiod import events
from mistudiod.errors import NotFound
from mistudiod.label_statements import Found
from mistudiod.label_statements import record as record_labels
from mistudiod.statements import job_row


class Metric(NamedTuple):
    """Of one SAE at one step; ``sae`` is empty for the job as a whole."""

    step: int
    sae: str
    values: str  # JSON

    @classmethod
    def of(cls, said: events.Metric) -> Metric:
        return cls(said.step, said.sae or "", json.dumps(said.values))


class Live(NamedTuple):
    """What one SAE is learning."""

    sae: str
    step: int
    features: str  # JSON

    @classmethod
    def of(cls, said: events.Live) -> Live:
        return cls(said.sae or "", said.step, json.dumps([one.model_dump() for one in said.features]))


def record(
    db: sqlite3.Connection,
    job: int,
    progress: dict[str, Any] | None,
    result: dict[str, Any] | None,
    metrics: Iterable[Metric],
    live: Iterable[Live] = (),
    found: Found | None = None,
) -> None:
    """What a worker has said since the last time. ``found``: of labels."""
    if progress is not None:
        db.execute("update jobs set progress = ? where id = ?", (json.dumps(progress), job))
    if result is not None:
        db.execute("update jobs set result = ? where id = ?", (json.dumps(result), job))
    add_metrics(db, job, metrics)
    db.executemany("insert or replace into live values (?, ?, ?, ?)", [(job, *one) for one in live])
    if found is not None:
        record_labels(db, job, found)


def add_metrics(db: sqlite3.Connection, job: int, metrics: Iterable[Metric]) -> None:
    db.executemany("insert or replace into metrics values (?, ?, ?, ?)", ((job, *one) for one in metrics))


def metrics_of(db: sqlite3.Connection, job: int) -> Iterator[Metric]:
    """All of a job's, step by step."""
    for row in db.execute('select step, sae, "values" from metrics where job = ? order by step, sae', (job,)):
        yield Metric(*row)


def metrics_page(db: sqlite3.Connection, job: int, after_step: int, limit: int, sae: str | None) -> dict[str, Any]:
    """``{"metrics", "next"}``: whole steps, ``limit`` measurements at most unless one step alone has more.

    Raises NotFound when there is no such job, or it makes no such SAE.
    """
    _require(db, job, sae)
    query = """select step, sae, "values" from metrics
               where job = :job and step > :after and (:sae is null or sae = :sae) order by step, sae"""
    asked = {"job": job, "after": after_step, "sae": sae, "limit": limit}
    rows = db.execute(f"{query} limit :limit + 1", asked).fetchall()
    more = len(rows) > limit
    if more:
        cut = rows[-1]["step"]
        whole = [row for row in rows if row["step"] < cut]
        if not whole:
            whole = db.execute(f"select * from ({query}) where step = :step", {**asked, "step": cut}).fetchall()
        rows = whole
    found = [{"step": row["step"], "sae": row["sae"] or None, "values": json.loads(row["values"])} for row in rows]
    return {"metrics": found, "next": rows[-1]["step"] if more else None}


def live_of(db: sqlite3.Connection, job: int) -> list[dict[str, Any]]:
    """The newest of each SAE, in the order in which the job names them, if it makes them. Raises NotFound."""
    job_row(db, job)
    query = """select live.sae, step, features from live
               left join makes on makes.job = live.job and makes.name = live.sae where live.job = ? order by n"""
    rows = db.execute(query, (job,)).fetchall()
    return [{"sae": row["sae"], "step": row["step"], "features": json.loads(row["features"])} for row in rows]


def _require(db: sqlite3.Connection, job: int, sae: str | None) -> None:
    makes = job_row(db, job)["makes"]
    if sae is not None and not (makes and sae in makes["names"]):
        raise NotFound(f"job {job} makes no SAE named {sae!r}")
