"""What comes at the worst moment: callers that go away, readers that are slow, another database, a full disk."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact
from mistudio import stream
from mistudio.errors import Unreachable
from mistudio.progress import follow
from plain_store import feature, write_store

from mistudiod import database as database_module
from mistudiod import records
from mistudiod.api import running
from mistudiod.api.keys import BUS, DATABASE, RECORDS, SCHEDULER
from mistudiod.bus import Bus
from mistudiod.database import tell
from mistudiod.events import from_line
from mistudiod.missed import missed
from mistudiod.specs import JobRequest


async def begin_and_go(studio: Studio, work: Coroutine[Any, Any, Any]) -> None:
    """Cancel a request's work while its write waits for the writer, as when its asker has gone."""
    database, waits, free = studio.app[DATABASE], asyncio.Event(), threading.Event()
    write = database.write
    busy = asyncio.create_task(write(lambda _: free.wait(60)))
    task = asyncio.create_task(work)

    async def seen(function: Callable[[Any], Any]) -> Any:
        if asyncio.current_task() is task:
            waits.set()
        return await write(function)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "write", seen)
            await asyncio.wait_for(waits.wait(), 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        free.set()
    await busy
    await write(lambda _: None)  # behind it in the writer's queue


async def slow_job(studio: Studio) -> int:
    job = (await studio.submit(dataset("slow")))["id"]
    await there(studio.data / "runs" / str(job) / "attempt-1")  # its worker is at work
    return int(job)


async def there(path: Path, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not path.exists():
        assert time.monotonic() < end, path
        await asyncio.sleep(0.02)


async def test_a_job_whose_submitter_has_gone_runs(studio: Studio) -> None:
    request = JobRequest.model_validate({"spec": dataset("ok")})
    await begin_and_go(studio, studio.app[SCHEDULER].submit(request))
    await studio.until(1, "done")


@pytest.mark.parametrize(("ask", "state"), [("stop", "stopped"), ("pause", "paused")])
async def test_what_was_asked_of_a_job_happens_though_the_asker_has_gone(studio: Studio, ask: str, state: str) -> None:
    job = await slow_job(studio)
    await begin_and_go(studio, getattr(studio.app[SCHEDULER], ask)(job))
    assert (await studio.until(job))["state"] == state


async def test_a_confirmed_stop_is_not_undone_by_a_resume_at_the_same_moment(studio: Studio) -> None:
    job = await slow_job(studio)
    await studio.act(job, "pause")
    await studio.until(job, "paused")
    scheduler = studio.app[SCHEDULER]
    await asyncio.gather(scheduler.stop(job), scheduler.resume(job), return_exceptions=True)
    assert (await studio.get(f"/api/jobs/{job}"))["state"] == "stopped"


async def test_a_slow_reader_is_never_given_a_gap(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "KEPT_EVENTS", 1024)
    database, bus = studio.app[DATABASE], studio.app[BUS]
    bus._ring = deque(maxlen=16)

    async def add(n: int) -> None:
        await database.write(lambda db: [tell(db, "job", {"id": 1, "n": i}) for i in range(n)])

    await add(900)
    first = bus.newest - 899
    seen = first
    async for message in missed(bus, database, first):
        if message is None:
            return  # told that it has missed too much
        assert message.id == seen + 1
        seen = message.id
        if seen == first + 100:  # what comes next is pruned before it asks for it
            for _ in range(6):
                await add(300)
    raise AssertionError("nothing was pruned")


async def test_the_numbers_of_another_database_are_not_taken_for_this_ones(
    open_studio: OpenStudio, tmp_path: Path
) -> None:
    studio = await open_studio()
    job = (await studio.submit(dataset("ok")))["id"]
    await studio.until(job, "done")
    seen = studio.app[BUS].newest - 1
    await studio.server.close()
    for file in tmp_path.glob("data/mistudio.db*"):
        file.unlink()
    again = await open_studio()
    url = again.server.make_url("/api/events?topics=job,artifact")
    async with again.session.get(url, headers={"Last-Event-ID": str(seen)}) as response:
        await asyncio.wait_for(response.content.readuntil(b"event: reset\n"), 5)


async def test_a_snapshot_holds_every_artifact(open_studio: OpenStudio, tmp_path: Path) -> None:
    for n in range(1001):
        put_artifact(tmp_path / "data", "datasets", f"d{n:04}", "dataset.json")
    studio = await open_studio()
    async with studio.session.get(studio.server.make_url("/api/events?after=0")) as response:
        await asyncio.wait_for(response.content.readuntil(b"event: reset\ndata: "), 10)
        assert len(json.loads(await response.content.readuntil(b"\n"))["artifacts"]) == 1001


async def test_a_stream_that_comes_as_the_daemon_ends_is_ended_too() -> None:
    bus = Bus()
    bus.close()
    with bus.subscribe(frozenset({"job"})) as late:
        assert await asyncio.wait_for(late.take(), 1) == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"result","result":{"fvu":NaN}}',
        b'{"event":"result","result":{"fvu":1e999}}',
        b'{"event":"result","result":{"a":[{"fvu":-Infinity}]}}',
        b'{"event":"metric","step":9223372036854775808,"values":{"a":1}}',
    ],
)
def test_what_no_answer_or_row_could_hold_is_dropped_where_it_comes_in(line: bytes) -> None:
    assert from_line(line) is None


async def test_no_number_in_a_feature_store_is_said_to_be_damage(open_studio: OpenStudio, tmp_path: Path) -> None:
    put_artifact(tmp_path / "data", "saes", "a", "recipe.json")
    write_store(tmp_path / "data" / "features" / "a" / "1", [feature(1, math.nan)], sae="a", id="1")
    studio = await open_studio()
    for path in ("", "/0"):
        status, body = await studio.call("GET", f"/api/saes/a/features{path}")
        assert status == 409 and "NaN or infinity" in body["error"]["message"]


async def test_a_record_that_could_not_be_written_is_mended_at_the_next_start(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await slow_job(studio)
    await studio.act(job, "pause")
    await studio.until(job, "paused")
    record = studio.data / "runs" / str(job) / "job.json"
    await there(record)
    tried = threading.Event()

    def full(*_: object) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_record", full)
        await studio.act(job, "stop")
        assert await asyncio.to_thread(tried.wait, 20)
    await studio.app[RECORDS].rebuild()
    await studio.app[RECORDS].flush()
    assert json.loads(record.read_text())["state"] == "stopped"


async def test_a_job_that_goes_while_another_is_measured_is_left_out(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(await studio.submit(dataset(name)))["id"] for name in ("slow-a", "slow-b")]
    while studio.app[SCHEDULER].pids().keys() != set(jobs):
        await asyncio.sleep(0.02)
    measured, begun, gone = running.measured, threading.Event(), threading.Event()

    def slowly(pid: int) -> Any:
        begun.set()
        assert gone.wait(60)
        return measured(pid)

    monkeypatch.setattr(running, "measured", slowly)
    asked = asyncio.create_task(studio.get("/api/ps"))
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        await studio.act(jobs[1], "stop")
        await studio.until(jobs[1], "stopped")
        assert (await studio.call("DELETE", f"/api/jobs/{jobs[1]}"))[0] == 204
    finally:
        gone.set()
    assert [one["job"] for one in (await asked)["running"]] == [jobs[0]]


def test_a_line_that_fell_silent_is_tried_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [0.0]
    monkeypatch.setattr(stream.time, "monotonic", lambda: at[0])
    monkeypatch.setattr(stream.time, "sleep", lambda s: at.__setitem__(0, at[0] + s))
    tries: list[object] = []

    @contextmanager
    def connect(last: Any) -> Any:
        tries.append(last)

        def chunks() -> Any:
            yield b"id: 1\nevent: job\ndata: {}\n\n"
            if len(tries) == 1:
                at[0] += 45.0  # longer than anybody waits for a studio that is gone
                raise Unreachable("silent")

        yield chunks()

    events = stream.listen(connect)
    assert [next(events)["topic"] for _ in range(4)] == ["connected", "job", "lost", "connected"]


def test_following_outlives_a_studio_that_goes_between_an_event_and_the_question_after_it() -> None:
    def job(state: str) -> dict[str, Any]:
        return {"id": 1, "state": state, "progress": None, "after": [], "started_at": None, "ended_at": None}

    class Drawn:
        def line(self, *_: object) -> None: ...
        def note(self, *_: object) -> None: ...

    class Restarting:
        def __init__(self) -> None:
            self.answers = iter([job("running"), None, job("done"), job("done")])

        def events(self, _topics: object) -> Any:
            yield {"id": "", "topic": "connected", "data": {}}
            yield {"id": "5", "topic": "job", "data": job("done")}

        def job(self, _id: int) -> dict[str, Any]:
            if (found := next(self.answers)) is None:
                raise Unreachable("no studio answers")
            return found

        def metrics(self, *_: object) -> dict[str, Any]:
            return {"metrics": [], "next": None}

    assert follow(Restarting(), 1, Drawn())["state"] == "done"  # type: ignore[arg-type]
