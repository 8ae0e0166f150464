"""What must hold when the database is held by another, or people and signals come at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact
from test_jobs import worker_of

BUSY_S = 6.5  # longer than the database's own patience of 5 s


@contextlib.contextmanager
def held(data: Path, seconds: float) -> Iterator[None]:
    """Another program holds the database's write lock for that long."""
    ready = threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(data / "mistudio.db", isolation_level=None)) as db:
            db.execute("begin immediate")
            ready.set()
            time.sleep(seconds)
            db.execute("rollback")

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    yield
    thread.join()


async def test_a_job_that_ends_while_the_database_is_held_is_not_lost(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    pid = await worker_of(studio, job["id"])
    with held(studio.data, BUSY_S):
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(BUSY_S)
    await worker_of(studio, job["id"], attempt=2)
    await studio.act(job["id"], "stop")
    await studio.until(job["id"], "stopped")
    assert (await studio.until((await studio.submit(dataset("ok")))["id"]))["state"] == "done"


async def test_a_submission_while_the_database_is_held_is_answered_and_the_scheduler_lives(studio: Studio) -> None:
    with held(studio.data, BUSY_S):
        status, body = await studio.call("POST", "/api/jobs", json={"spec": dataset("ok1")})
    assert status == 201 or (status, body["error"]["code"]) == (503, "store")
    assert (await studio.until((await studio.submit(dataset("ok2")))["id"]))["state"] == "done"


async def test_metrics_said_while_the_database_is_held_are_kept(studio: Studio) -> None:
    job = await studio.submit(dataset("slow-flood"))
    await worker_of(studio, job["id"])
    await studio.act(job["id"], "pause")
    await studio.until(job["id"], "paused")
    again = await studio.submit(dataset("flood"))
    await worker_of(studio, again["id"])
    with held(studio.data, BUSY_S):
        await asyncio.sleep(BUSY_S)
    await studio.until(again["id"], "done")
    page = await studio.get(f"/api/jobs/{again['id']}/metrics?limit=50000")
    assert [row["step"] for row in page["metrics"]] == list(range(20_000))


async def test_sigterm_from_outside_is_an_accident_and_the_job_goes_on(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    os.kill(await worker_of(studio, job["id"]), signal.SIGTERM)
    await worker_of(studio, job["id"], attempt=2)
    await studio.act(job["id"], "stop")
    await studio.until(job["id"], "stopped")


@pytest.mark.parametrize(("what", "end"), [("pause", "paused"), ("stop", "stopped")])
async def test_what_was_asked_of_a_worker_that_dies_meanwhile_is_heeded(studio: Studio, what: str, end: str) -> None:
    job = await studio.submit(dataset("deaf"))
    pid = await worker_of(studio, job["id"])
    await studio.act(job["id"], what)
    os.kill(pid, signal.SIGKILL)
    assert (await studio.until(job["id"]))["state"] == end


async def test_a_retry_at_once_is_a_full_attempt_that_can_be_stopped(studio: Studio) -> None:
    job = await studio.submit(dataset("fail"))
    for attempt in range(1, 6):
        assert (await studio.until(job["id"], "failed"))["attempts"] == attempt
        await studio.act(job["id"], "retry")
    await studio.until(job["id"], "failed")
    slow = await studio.submit(dataset("slow"))
    for attempt in range(1, 4):
        await worker_of(studio, slow["id"], attempt)
        await studio.act(slow["id"], "stop")
        await studio.until(slow["id"], "stopped")
        await studio.act(slow["id"], "retry")
    await worker_of(studio, slow["id"], 4)
    await studio.act(slow["id"], "stop")
    await studio.until(slow["id"], "stopped")


async def test_a_retry_waits_for_nothing_that_will_not_be_done(studio: Studio) -> None:
    bad = await studio.submit(dataset("fail"))
    good = await studio.submit(dataset("ok"), after=[bad["id"]])
    await studio.until(good["id"], "stopped")
    status, body = await studio.call("POST", f"/api/jobs/{good['id']}/retry")
    assert status == 409 and f"retry job {bad['id']}" in body["error"]["message"]


async def test_a_job_that_ends_while_an_sae_is_moved_away_is_done(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sae in ("a", "moved", "z"):
        (studio.data / "features" / sae).mkdir(parents=True)
    scan, moved = os.scandir, studio.data / "features" / "moved"

    def scandir(path: str | Path = ".") -> Iterator[os.DirEntry[str]]:
        if Path(path) == moved and moved.exists():  # somebody renames it just before it is looked into
            moved.rename(tmp_path / "elsewhere")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done = await studio.until((await studio.submit(dataset("ok")))["id"])
    assert (done["state"], moved.exists()) == ("done", False)


async def test_a_name_that_is_being_made_is_taken_whatever_its_case(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    assert (await studio.call("POST", "/api/jobs", json={"spec": dataset("SLOW")}))[0] == 409
    await studio.act(job["id"], "stop")


async def test_a_daemon_that_closes_waits_for_the_job_it_is_just_starting(open_studio: OpenStudio) -> None:
    for _ in range(5):
        studio = await open_studio()
        for i in range(3):
            with contextlib.suppress(AssertionError):  # the name is in use from the last time
                await studio.submit(dataset(f"slow-{i}"))
        await studio.session.close()
        await studio.server.close()
    again = await open_studio()
    for job in (await again.get("/api/jobs"))["jobs"]:
        await again.until(job["id"], "running")
        await again.act(job["id"], "stop")
        await again.until(job["id"], "stopped")


async def test_previews_are_few_at_once(open_studio: OpenStudio, tmp_path: Path) -> None:
    put_artifact(tmp_path / "data", "datasets", "d", "dataset.json")
    studio = await open_studio()
    asked = [studio.call("GET", "/api/datasets/d/sample") for _ in range(12)]
    statuses = [status for status, _ in await asyncio.gather(*asked)]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 4
