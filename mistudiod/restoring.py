"""Jobs brought back from their run folders into a database that does not have them."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mistudiod.index import read_json
from mistudiod.jobs import ENDED, State
from mistudiod.paths import newest_checkpoint
from mistudiod.readings import Metric, add_metrics
from mistudiod.specs import KINDS, LANES, MAKES, USES, names_made, read_by
from mistudiod.statements import claim_names, told

SPEC, RECORD, METRICS = "spec.json", "job.json", "metrics.jsonl"
# Of the job, beside what the worker reads; it reads ``finalize`` as well.
IN_SPEC = ("priority", "created_at", "started_at", "attempts", "after", "finalize")
AT_REST = ENDED | {State.PAUSED}  # a job in one of these states has a record
_HIGHEST = 2**31  # a folder of a higher number is none of ours

log = logging.getLogger("mistudiod.restoring")


class Makes(BaseModel):
    noun: str = Field(max_length=50)
    name: str = Field(max_length=64)
    names: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=1000)

    @model_validator(mode="after")
    def _every_name(self) -> Makes:
        """Before version 0.4 there was only one."""
        self.names = self.names or [self.name]
        return self


class Record(BaseModel):
    """A job as the API shows it."""

    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True)

    id: int
    kind: str
    state: State
    priority: int = Field(0, ge=-100, le=100)
    created_at: str = Field(max_length=40)
    started_at: str | None = Field(None, max_length=40)
    ended_at: str | None = Field(None, max_length=40)
    spec: dict[str, Any]
    plan: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    attempts: int = Field(0, ge=0, le=10_000)
    after: list[Annotated[int, Field(ge=1, lt=_HIGHEST)]] = Field(default_factory=list, max_length=1000)
    makes: Makes | None = None
    finalize: bool = False
    yielded: bool = False

    @model_validator(mode="after")
    def _can_be_run_again(self) -> Record:
        if self.kind not in KINDS or self.spec.get("kind") != self.kind:
            raise ValueError(f"there is no kind of job {self.kind!r}")
        named = {field for field, _, _ in read_by(self.kind, self.spec)}
        if any(field not in named and KINDS[self.kind].model_fields[field].is_required() for field in USES[self.kind]):
            raise ValueError("its spec does not name what it reads")
        return self


def read_records(runs: Path, known: Collection[int] = frozenset()) -> tuple[list[Record], int]:
    """What the run folders know of jobs that are not ``known``, in the order of their ids, and the highest number.

    A job without a record, or with a damaged one, has not come to its end: it is read from its spec, as stopped.
    A folder that holds neither is logged and left alone.
    """
    numbers = sorted(number for path in runs.glob("*") if (number := _number(path.name)) is not None)
    found = (_read(runs / str(number), number) for number in numbers if number not in known)
    return [record for record in found if record is not None], max(numbers, default=0)


def restore(db: sqlite3.Connection, runs: Path, records: Iterable[Record], highest: int) -> int:
    """Insert the jobs that the database does not have; returns how many. Those that it has are left as they are.

    Neither a number up to ``highest`` nor that of a job which has made an artifact is ever given to a new job.
    """
    inserted = [record for record in records if _insert(db, record)]
    for record in inserted:
        add_metrics(db, record.id, _read_metrics(runs / str(record.id) / METRICS, _only_sae(record.makes)))
        for needed in record.after:
            db.execute("insert or ignore into dependencies select ?, id from jobs where id = ?", (record.id, needed))
        if record.makes and record.state is State.DONE:
            # Few artifacts say themselves which job has made them; one that does may have another's name by now.
            query = """update artifacts set job = :id where noun = :noun and name = :name
                       and (job is null or job < :id) and json_extract(info, '$.job') is null"""
            for name in record.makes.names:
                db.execute(query, {"id": record.id, "noun": record.makes.noun, "name": name})
        told(db, record.id)
    made_by = db.execute("select max(job) from artifacts").fetchone()[0] or 0
    used = db.execute("select seq from sqlite_sequence where name = 'jobs'").fetchone()
    db.execute("delete from sqlite_sequence where name = 'jobs'")
    newest = max(highest, made_by, used["seq"] if used else 0)
    db.execute("insert into sqlite_sequence (name, seq) values ('jobs', ?)", (newest,))
    return len(inserted)


def _insert(db: sqlite3.Connection, record: Record) -> bool:
    columns = (record.plan, record.progress, record.result, record.error)
    texts = [json.dumps(v) if v is not None else None for v in columns]
    cursor = db.execute(
        """insert or ignore into jobs (id, kind, lane, spec, state, priority, created_at, started_at, ended_at,
           plan, progress, result, error, finalize, yielded) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)""",
        (
            *(record.id, record.kind, LANES[record.kind], json.dumps(record.spec), record.state.value, record.priority),
            *(record.created_at, record.started_at, record.ended_at, *texts, record.finalize, record.yielded),
        ),
    )
    if cursor.rowcount != 1:
        return False
    if record.makes:
        claim_names(db, record.id, record.makes.noun, record.makes.names)
    started = record.started_at or record.created_at
    db.executemany(
        "insert into attempts (job, n, started_at, ended_at, reason) values (?, ?, ?, ?, 'restored')",
        [(record.id, n + 1, started, record.ended_at or started) for n in range(record.attempts)],
    )
    return True


def _number(name: str) -> int | None:
    number = int(name) if name.isascii() and name.isdecimal() and len(name) <= 10 else 0
    return number if 0 < number < _HIGHEST and str(number) == name else None


def _read(run: Path, number: int) -> Record | None:
    try:
        record = Record.model_validate(read_json(run / RECORD))
        if (record.id, record.state in AT_REST) == (number, True):
            return record
        log.warning("%s is damaged: it is not that of job %s at rest", run / RECORD, number)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("%s is damaged: %s", run / RECORD, _sentence(error))
    try:
        return _from_spec(run, number)
    except (OSError, ValueError) as error:
        log.warning("job %s cannot be restored from %s, which is left as it is: %s", number, run, _sentence(error))
        return None


def _from_spec(run: Path, number: int) -> Record:
    """A job that had not come to its end, or whose end is not known. Raises OSError, ValueError."""
    order = read_json(run / SPEC)
    spec = order.get("spec") if isinstance(order, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
        raise ValueError(f"{SPEC} is damaged")
    kind, touched = spec["kind"], _touched(run)
    names = _names(spec)
    name = spec.get("name") or next(iter(names), None)
    known = {name: order[name] for name in IN_SPEC if name in order}
    again = "to go on from its last checkpoint" if newest_checkpoint(run) is not None else "to do it again"
    message = f"the database was lost, and with it how this job went; retry {again}"
    return Record.model_validate(
        {"attempts": 1, "created_at": touched, "started_at": touched, **known}
        | {"id": number, "kind": kind, "state": State.STOPPED, "spec": spec}
        | {"ended_at": touched, "error": {"code": "restored", "message": message}}
        | {"makes": {"noun": MAKES[kind], "name": name, "names": names} if kind in MAKES and name else None}
    )


def _names(spec: dict[str, Any]) -> list[str]:
    """Of all that a job makes; none when its spec is that of an older version, of which only ``name`` is known."""
    try:
        return names_made(KINDS[spec["kind"]].model_validate(spec))
    except ValidationError:
        return []


def _only_sae(makes: Makes | None) -> str:
    """Whose metrics are those that name no SAE: empty for a job as a whole."""
    return makes.name if makes and makes.noun == "sae" and len(makes.names) == 1 else ""


def _read_metrics(path: Path, sae: str) -> Iterator[Metric]:
    """Of every line that is whole; ``sae``: whose those are that name none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if (metric := _metric(line, sae)) is not None:
                    yield metric
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s cannot be read to its end: %s", path, error)


def _metric(line: str, usual: str) -> Metric | None:
    try:
        found = json.loads(line, parse_constant=lambda _: None)
        step, sae, values = found["step"], found.get("sae") or usual, found["values"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(step, int) or not 0 <= step < 2**63 or not isinstance(values, dict) or not isinstance(sae, str):
        return None
    return Metric(step, sae, json.dumps(values))


def _touched(run: Path) -> str:
    """When the worker last wrote to its folder, as far as can be seen."""
    at = max(path.stat().st_mtime for path in (run / SPEC, run / "log.txt") if path.exists())
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return str(error)
