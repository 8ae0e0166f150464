"""The database is deleted: what a studio knew comes back from its folders, by itself or with ``mistudiod reindex``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, train
from plain_store import feature, write_store
from test_daemon import Daemon, start  # noqa: F401 - a fixture

NOUNS = ("model", "dataset", "tokenization", "sae")


def lose_database(data: Path) -> None:
    lost = list(data.glob("mistudio.db*"))
    assert lost
    for path in lost:
        path.unlink()


async def everything(studio: Studio) -> dict[str, Any]:
    """All that the API says of what is kept. Ids of artifacts are the database's own."""
    found: dict[str, Any] = {"jobs": (await studio.get("/api/jobs"))["jobs"]}
    for noun in NOUNS:
        artifacts = (await studio.get(f"/api/{noun}s"))[f"{noun}s"]
        found[noun] = sorted(({**one, "id": None} for one in artifacts), key=lambda one: one["name"])
    for job in found["jobs"]:
        found[f"metrics {job['id']}"] = await studio.get(f"/api/jobs/{job['id']}/metrics")
        found[f"log {job['id']}"] = await studio.get(f"/api/jobs/{job['id']}/log")
    for sae in found["sae"]:
        found[f"features {sae['name']}"] = (await studio.call("GET", f"/api/saes/{sae['name']}/features"))[1]
    return found


async def a_full_studio(open_studio: OpenStudio) -> Studio:
    studio = await open_studio()
    put_artifact(studio.data, "models", "m", "model.json", '{"parameters": 5}')
    put_artifact(studio.data, "tokens", "t", "tokenization.json", '{"dataset": "d", "model": "m"}')
    write_store(studio.data / "features" / "flood" / "99", [feature(1, 1.5)] * 4, sae="flood", id="99", job=99)
    await studio.server.close()
    studio = await open_studio()
    for spec in (dataset("ok"), train("flood"), dataset("fail"), dataset("silent"), dataset("once")):
        await studio.until((await studio.submit(spec))["id"])
    waits = await studio.submit(dataset("slow"))
    await studio.submit(dataset("waits"), after=[waits["id"]])
    await studio.until(waits["id"], "running")
    await studio.act(waits["id"], "stop")
    await studio.until(waits["id"], "stopped")
    paused = await studio.submit(dataset("slow"))
    await studio.until(paused["id"], "running")
    await studio.act(paused["id"], "pause")
    await studio.until(paused["id"], "paused")
    return studio


async def test_a_daemon_without_its_database_finds_everything_by_itself(open_studio: OpenStudio) -> None:
    studio = await a_full_studio(open_studio)
    before = await everything(studio)
    states = [job["state"] for job in reversed(before["jobs"])]
    assert states == ["done", "done", "failed", "failed", "done", "stopped", "stopped", "paused"]
    assert before["features flood"]["features"][3]["index"] == 3
    await studio.server.close()
    lose_database(studio.data)
    studio = await open_studio()
    assert await everything(studio) == before
    assert (await studio.submit(dataset("ok2")))["id"] == before["jobs"][0]["id"] + 1
    await studio.act(before["jobs"][0]["id"], "resume")
    await studio.until(before["jobs"][0]["id"], "running")
    await studio.act(before["jobs"][0]["id"], "stop")


async def test_a_restart_with_the_database_changes_nothing(open_studio: OpenStudio) -> None:
    studio = await a_full_studio(open_studio)
    before = await everything(studio)
    await studio.server.close()
    studio = await open_studio()
    assert await everything(studio) == before


async def test_what_was_stopped_with_another_job_is_queued_with_it_again(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    first = await studio.submit(dataset("fail"))
    second = await studio.submit(dataset("ok"), after=[first["id"]])
    assert (await studio.until(second["id"]))["error"]["job"] == first["id"]
    await studio.server.close()
    lose_database(studio.data)
    studio = await open_studio()
    await studio.act(first["id"], "retry")
    assert (await studio.until(second["id"], "stopped"))["after"] == [first["id"]]
    assert (await studio.until(first["id"], "failed"))["attempts"] == 2


async def test_what_was_removed_does_not_come_back(open_studio: OpenStudio) -> None:
    studio = await a_full_studio(open_studio)
    done = (await studio.get("/api/jobs"))["jobs"][-1]["id"]
    for path in (f"/api/jobs/{done}", "/api/datasets/ok", "/api/saes/flood"):
        assert (await studio.call("DELETE", path))[0] == 204
    assert (await studio.call("GET", "/api/saes/flood/features"))[0] == 404
    before = await everything(studio)
    await studio.server.close()
    lose_database(studio.data)
    studio = await open_studio()
    assert await everything(studio) == before
    assert not list(studio.data.glob("*/.partial-*"))


async def test_a_new_sae_does_not_show_the_features_of_a_removed_one_of_its_name(open_studio: OpenStudio) -> None:
    studio = await a_full_studio(open_studio)
    assert (await studio.call("DELETE", "/api/saes/flood"))[0] == 204
    await studio.until((await studio.submit(train("flood")))["id"])
    assert (await studio.call("GET", "/api/saes/flood/features"))[0] == 404


@pytest.mark.parametrize("command", ["reindex", "serve"])
def test_jobs_that_were_live_when_all_was_lost_can_be_retried(start: Any, command: str) -> None:  # noqa: F811
    daemon = start().ready()
    done = daemon.call("/api/jobs", {"spec": dataset("ok")})["id"]
    daemon.until(done, "done")
    live = daemon.call("/api/jobs", {"spec": dataset("slow")})["id"]
    daemon.until(live, "running")
    _until_there(daemon.data / "runs" / str(live) / "attempt-1")
    daemon.end(signal.SIGKILL)
    lose_database(daemon.data)
    if command == "reindex":
        assert "dataset 1" in (said := _reindex(daemon)), said
        assert "jobs brought back: 2" in said
    daemon = start().ready()
    assert daemon.call(f"/api/jobs/{done}")["state"] == "done"
    stopped = daemon.call(f"/api/jobs/{live}")
    assert (stopped["state"], stopped["error"]["code"]) == ("stopped", "restored")
    daemon.call(f"/api/jobs/{live}/retry", {})
    daemon.until(live, "running")
    daemon.call(f"/api/jobs/{live}/stop", {})
    assert daemon.until(live, "stopped")["attempts"] == 2
    assert daemon.call("/api/jobs", {"spec": dataset("new")})["id"] == live + 1


def test_a_daemon_that_is_killed_after_a_jobs_end_still_leaves_its_record(start: Any) -> None:  # noqa: F811
    daemon = start().ready()
    job = daemon.call("/api/jobs", {"spec": dataset("ok")})["id"]
    daemon.until(job, "done")
    daemon.end(signal.SIGKILL)
    record = daemon.data / "runs" / str(job) / "job.json"
    record.unlink(missing_ok=True)  # as if it had been killed a moment earlier
    start().ready()
    _until_there(record)
    assert json.loads(record.read_text())["state"] == "done"


def test_reindex_refuses_while_a_daemon_runs(start: Any) -> None:  # noqa: F811
    daemon = start().ready()
    assert "another daemon" in _reindex(daemon, code=78)


async def test_a_name_that_another_sae_had_when_it_was_made_keeps_the_job_that_made_it(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    put_artifact(studio.data, "tokens", "t", "tokenization.json", '{"dataset": "d", "model": "m"}')
    await studio.server.close()
    studio = await open_studio()
    jobs = {}
    for name in ("b", "a"):
        jobs[name] = (await studio.submit(train(name)))["id"]
        await studio.until(jobs[name])
    for was, name in (("a", "c"), ("b", "a")):
        assert (await studio.call("POST", f"/api/saes/{was}/rename", json={"name": name}))[0] == 200
    for lost in (False, True):
        if lost:
            await studio.server.close()
            lose_database(studio.data)
            studio = await open_studio()
        assert (await studio.get("/api/saes/a"))["job"] == jobs["b"]
        assert (await studio.get("/api/saes/c"))["job"] == jobs["a"]


async def test_a_large_index_does_not_hold_up_the_loop(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    for number in range(2000):
        put_artifact(studio.data, "models", f"m{number}", "model.json", json.dumps({"layers": list(range(200))}))
    await studio.server.close()
    began, began_loop = time.process_time(), time.thread_time()
    studio = await open_studio()
    took, took_loop = time.process_time() - began, time.thread_time() - began_loop
    assert len((await studio.get("/api/models?limit=1000"))["models"]) == 1000
    assert took_loop < took / 2, "reading the index is work for other threads"


def _reindex(daemon: Daemon, code: int = 0) -> str:
    command = [sys.executable, "-m", "mistudiod", "reindex", "--data", str(daemon.data)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr


def _until_there(path: Path, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)
