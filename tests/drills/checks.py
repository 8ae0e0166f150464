"""What must hold of a studio after a fault. Each raises Lost, saying what does not."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.drills.daemon import Daemon, wait_for
from tests.drills.ground import below
from tests.drills.work import Lost, Told, Work, made

NOUNS = {"model": "model.json", "dataset": "dataset.json", "tokenization": "tokenization.json", "sae": "recipe.json"}
FOLDERS = {"model": "models", "dataset": "datasets", "tokenization": "tokens", "sae": "saes"}
LISTED = ("done", "partial", "running", "pausing", "stopping")  # what such a job makes may be listed
WRITTEN_S = 30.0  # the record of a job that has just ended is being written
IDLE_S = 90.0  # a session that has been begun loads its model before it finds that nobody waits


def at_once(daemon: Daemon, work: Work, data: Path) -> None:
    """While there may be work under way."""
    whole_database(data)
    daemon.workers()  # never two at one job
    known = {job["id"]: job for job in daemon.call("/api/jobs?limit=1000")["jobs"]}
    if gone := work.jobs.keys() - known.keys():
        raise Lost(f"jobs {sorted(gone)} are gone")
    nothing_half_made(daemon, data, [known[job] for job in work.jobs])


def at_rest(daemon: Daemon, work: Work, data: Path) -> None:
    """When every job has ended."""
    at_once(daemon, work, data)
    work.compare(data)
    told_in_a_sentence(work.told, data)
    if not wait_for(lambda: not held(data) and not daemon.workers(), IDLE_S):
        raise Lost(f"the GPU is still held: {held(data)}, workers {daemon.workers()}")
    if not wait_for(lambda: not half_written(data), WRITTEN_S):
        raise Lost(f"half written: {half_written(data)}")


def half_written(data: Path) -> list[str]:
    return [str(path) for path in below(data) if path.name.startswith(".partial-") and "trash" not in path.parts]


def whole_database(data: Path) -> None:
    said = query(data, "pragma integrity_check")
    if said != [("ok",)]:
        raise Lost(f"the database is damaged: {said[:3]}")


def nothing_half_made(daemon: Daemon, data: Path, jobs: list[dict[str, Any]]) -> None:
    """What is listed is whole and there once; of a job that is not done nothing is listed."""
    unfinished = {name: job for job in jobs if job["state"] not in LISTED for _, name in made(job)}
    for noun, marker in NOUNS.items():
        names = [one["name"] for one in daemon.call(f"/api/{noun}s?limit=1000")[f"{noun}s"]]
        if len(names) != len(set(names)):
            raise Lost(f"a {noun} is listed twice: {sorted(names)}")
        for name in names:
            if name in unfinished and not grid_member(unfinished[name]):
                state = daemon.call(f"/api/jobs/{unfinished[name]['id']}")["state"]  # it may have gone on meanwhile
                if state not in LISTED:
                    raise Lost(f"the {noun} {name} is listed, and its job is {state}")
            try:
                json.loads((data / FOLDERS[noun] / name / marker).read_text())
            except (OSError, ValueError) as error:
                raise Lost(f"the {noun} {name} is listed and is not whole: {error}") from error


def grid_member(job: dict[str, Any]) -> bool:
    """Of a training that makes several SAEs, each is there once it is finished."""
    return len(job["makes"]["names"]) > 1


def told_in_a_sentence(told: list[Told], data: Path) -> None:
    """Every job that did not go on by itself says why, and every attempt that ended how."""
    for job, _, message in told:
        if not message or "\n" in message or "Traceback" in message or len(message) > 1000:
            raise Lost(f"of job {job} a person is told {message!r}, which is no sentence")
    if mute := query(data, "select job, n from attempts where ended_at is not null and coalesce(reason, '') = ''"):
        raise Lost(f"attempts that ended without a word: {mute}")


def held(data: Path) -> list[Any]:
    return query(data, "select id, job, model, pid from leases where released_at is null")


def query(data: Path, sql: str) -> list[Any]:
    """Asked by a connection that cannot write."""
    with contextlib.closing(sqlite3.connect(f"file:{data}/mistudio.db?mode=ro", uri=True, timeout=30)) as db:
        return db.execute(sql).fetchall()
