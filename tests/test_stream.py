"""The event stream in depth: resume, reset, what may be dropped and what never, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import pytest
from aiohttp import ClientError
from conftest import OpenStudio, Studio, dataset, put_artifact, train

from mistudiod.api import stream as stream_module
from mistudiod.api.keys import BUS, DATABASE, JOBS
from mistudiod.bus import PING, Bus, Message
from mistudiod.database import tell
from mistudiod.errors import StoreError
from mistudiod.jobs import State


class Reader:
    """Reads a stream record by record: ``{"id", "event", "data"}``."""

    def __init__(self, response: Any) -> None:
        self.response = response

    async def next(self, limit_s: float = 60.0) -> dict[str, Any]:
        record: dict[str, Any] = {}
        while True:
            line = (await asyncio.wait_for(self.response.content.readline(), limit_s)).decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and record:
                return record
            if name in ("id", "event"):
                record[name] = value
            elif name == "data":
                record[name] = json.loads(value)

    async def until(self, event: str, **data: Any) -> list[dict[str, Any]]:
        """All records up to the one that has that event and those data."""
        seen = []
        while True:
            seen.append(await self.next())
            if seen[-1].get("event") == event and all(seen[-1]["data"].get(k) == v for k, v in data.items()):
                return seen


def opened(studio: Studio, query: str = "", last: int | str | None = None) -> Any:
    headers = {"Last-Event-ID": str(last)} if last is not None else {}
    return studio.session.get(studio.server.make_url(f"/api/events{query}"), headers=headers)


async def add_events(studio: Studio, n: int) -> int:
    """``n`` state events; returns the id of the last."""
    await studio.app[DATABASE].write(lambda db: [tell(db, "job", {"id": 1, "n": i}) for i in range(n)])
    return studio.app[BUS].newest


async def test_a_new_reader_learns_where_the_stream_stands(studio: Studio) -> None:
    newest = await add_events(studio, 3)
    async with opened(studio) as response:
        assert await Reader(response).next() == {"id": str(newest)}


async def test_what_was_missed_is_told_again_in_order_and_once(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    async with opened(studio) as response:
        reader = Reader(response)
        last = int((await reader.next())["id"])
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])
    other = await studio.submit(dataset("ok"))
    await studio.until(other["id"], "done")
    async with opened(studio, last=last) as response:
        seen = await Reader(response).until("job", id=other["id"], state="done")
    ids = [int(record["id"]) for record in seen if "id" in record]
    assert ids == list(range(last + 1, ids[-1] + 1)), "every state event after the last one seen, once, in order"
    states = [(r["data"]["id"], r["data"]["state"]) for r in seen if r.get("event") == "job"]
    assert states[-3:] == [(other["id"], state) for state in ("queued", "running", "done")]
    assert (job["id"], "stopped") in states


async def test_a_reader_resumes_across_a_restart_of_the_daemon(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    async with opened(studio) as response:
        last = int((await Reader(response).next())["id"])
    job = await studio.submit(dataset("ok"))
    await studio.until(job["id"], "done")
    await studio.session.close()
    await studio.server.close()
    again = await open_studio()
    async with opened(again, f"?after={last}") as response:
        seen = await Reader(response).until("job", id=job["id"], state="done")
    assert [r["data"]["state"] for r in seen if r.get("event") == "job"] == ["queued", "running", "done"]


async def test_more_than_the_ring_holds_comes_from_the_store(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await add_events(studio, 1)
    newest = await add_events(studio, 5000)
    assert studio.app[BUS].since(first) is None, "the ring does not reach back so far"
    async with opened(studio, last=first) as response:
        reader = Reader(response)
        for id in range(first + 1, newest + 1):
            assert int((await reader.next())["id"]) == id


@pytest.mark.parametrize("last", [0, 10**12])
async def test_who_is_too_far_behind_or_comes_from_elsewhere_gets_a_snapshot(
    studio: Studio, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_artifact(studio.data, "saes", "old", "recipe.json")
    job = await studio.submit(dataset("ok"))
    await studio.until(job["id"], "done")
    await studio.app[DATABASE].write(lambda db: db.execute("delete from events"))
    newest = await add_events(studio, 5000)
    async with opened(studio, "?topics=job", last) as response:
        reader = Reader(response)
        record = await reader.next()
        assert record["event"] == "reset" and int(record["id"]) == newest
        assert [(one["id"], one["state"]) for one in record["data"]["jobs"]] == [(job["id"], "done")]
        assert {(one["noun"], one["name"]) for one in record["data"]["artifacts"]} == {("dataset", "ok")}
        other = await studio.submit(dataset("slow"))
        assert (await reader.next())["data"]["id"] == other["id"], "and the stream goes on from there"


async def test_a_job_that_is_removed_while_a_snapshot_is_made_is_left_out(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_SNAPSHOT_JOBS", 1)
    goes, stays = [(await studio.submit(dataset(name)))["id"] for name in ("slow-a", "slow-b")]
    jobs = studio.app[JOBS]
    in_state = jobs.in_state

    async def late(*states: State) -> list[int]:
        found = await in_state(*states)
        if goes in found:
            monkeypatch.setattr(jobs, "in_state", in_state)
            await studio.act(goes, "stop")
            await studio.until(goes, "stopped")
            assert (await studio.call("DELETE", f"/api/jobs/{goes}"))[0] == 204
        return list(found)

    monkeypatch.setattr(jobs, "in_state", late)
    async with opened(studio, "?topics=job", 10**12) as response:
        record = await Reader(response).next()
    assert (record["event"], [one["id"] for one in record["data"]["jobs"]]) == ("reset", [stays])


@pytest.mark.parametrize("error", [StoreError("the database is locked"), RuntimeError("a mistake")])
async def test_a_stream_that_cannot_go_on_is_ended_and_does_not_fall_silent(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fails(*_: object) -> Message:
        raise error

    monkeypatch.setattr(stream_module, "_reset", fails)
    async with opened(studio, "?topics=job", 10**12) as response:
        with pytest.raises((EOFError, ClientError)):
            await Reader(response).next(10)
    assert str(error) in caplog.text


async def test_only_as_many_events_are_kept_as_one_resumes_from(studio: Studio) -> None:
    await add_events(studio, 20_000)
    count = await studio.app[DATABASE].read(lambda db: db.execute("select count(*) from events").fetchone()[0])
    assert 8000 < count < 9000


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "²", ""])
async def test_an_odd_last_event_id_is_as_none(studio: Studio, last: str) -> None:
    async with studio.session.get(studio.server.make_url("/api/events"), headers={"Last-Event-ID": last}) as response:
        assert set(await Reader(response).next()) == {"id"}


async def test_readings_go_out_ten_times_a_second_at_most_and_the_last_always() -> None:
    bus = Bus()
    with bus.subscribe(frozenset({"metric", "job"})) as subscription:
        told: list[Message] = []
        began = time.monotonic()
        for step in range(100):
            bus.reading("metric", {"job": 1, "step": step})
            bus.reading("metric", {"job": 2, "step": step})
            await asyncio.sleep(0.005)
            if subscription._waiting:
                told += await subscription.take()
        bus.state(1, "job", {"id": 1, "state": "done"})
        told += await subscription.take()
        took_s = time.monotonic() - began
    of_one = [m.data["step"] for m in told if m.data and m.data.get("job") == 1]
    # At its beginning, then no more than each tenth of a second, and before the state.
    assert 4 <= len(of_one) <= 2 + 10 * took_s, (of_one, took_s)
    assert of_one == sorted(of_one) and of_one[-1] == 99, "the newest is never lost"
    assert told[-1].topic == "job", "and comes before the state that follows it"
    bus.close()


async def test_of_what_waits_for_those_who_resume_only_the_record_is_kept() -> None:
    bus = Bus()
    bus.state(1, "job", {"id": 1, "spec": {"kind": "train"}})
    (kept,) = bus.since(0) or []
    assert kept.data is None
    assert kept.record == b'id: 1\nevent: job\ndata: {"id":1,"spec":{"kind":"train"}}\n\n'


async def test_a_slow_reader_costs_a_bounded_queue_and_resumes_what_it_has_lost() -> None:
    bus = Bus()
    with bus.subscribe(frozenset({"job", "progress"})) as slow:
        for n in range(1, 1501):
            bus.state(n, "job", {"id": n})
            bus.reading("progress", {"job": n % 7, "done": n})
        assert slow.closed and len(slow._waiting) < 1100
        seen = [m.id for m in await slow.take() if m.id]
        missed = bus.since(seen[-1])
    assert missed is not None and [*seen, *(m.id for m in missed)] == list(range(1, 1501))
    bus.close()


async def test_a_ping_is_a_comment() -> None:
    assert PING.record == b": ping\n\n"


async def test_a_thousand_streams_leave_no_subscriber(studio: Studio) -> None:
    port = studio.server.port

    async def come_and_go() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"retry: 2000")
        writer.close()

    for _ in range(20):
        await asyncio.gather(*(come_and_go() for _ in range(50)))
    for _ in range(500):
        handlers = [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)]
        if not len(studio.app[BUS]) and len(handlers) < 10:
            break
        await asyncio.sleep(0.02)
    assert len(studio.app[BUS]) == 0
    assert len(handlers) < 10, f"{len(handlers)} connections are left"


async def test_there_is_a_most_of_streams(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_STREAMS", 2)
    async with opened(studio), opened(studio), opened(studio) as third:
        assert third.status == 429
        assert (await third.json())["error"]["code"] == "too_many"


async def test_a_reader_that_takes_nothing_is_let_go(open_studio: OpenStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_SEND_LIMIT_S", 0.5)
    studio = await open_studio()
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.connect(("127.0.0.1", studio.server.port))
    stalled.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not len(studio.app[BUS]):
        await asyncio.sleep(0.02)
    for n in range(900):
        studio.app[BUS].state(studio.app[BUS].newest + 1, "job", {"id": 1, "x": "y" * 20_000})
    for _ in range(400):
        if not len(studio.app[BUS]):
            break
        await asyncio.sleep(0.02)
    assert len(studio.app[BUS]) == 0
    await asyncio.sleep(0.2)
    with contextlib.closing(stalled):
        await asyncio.to_thread(_drain, stalled)


def _drain(connection: socket.socket) -> None:
    """To the end, which must come."""
    connection.settimeout(5)
    with contextlib.suppress(ConnectionError):
        while connection.recv(65_536):
            pass


async def test_streams_end_at_once_when_the_daemon_does(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    async with opened(studio) as response:
        await Reader(response).next()
        begun = asyncio.get_running_loop().time()
        closing = asyncio.create_task(studio.server.close())
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                await Reader(response).next()
        await closing
        assert asyncio.get_running_loop().time() - begun < 5


async def test_a_flood_of_metrics_never_closes_a_stream_of_states(studio: Studio) -> None:
    async with opened(studio, "?topics=job") as response:
        reader = Reader(response)
        job = await studio.submit(dataset("flood"))
        await reader.until("job", id=job["id"], state="done")


async def test_the_last_metrics_are_told_before_the_job_is_done(studio: Studio) -> None:
    put_artifact(studio.data, "tokens", "t", "tokenization.json")
    from mistudiod.api.keys import INDEX

    await studio.app[INDEX].rebuild()
    async with opened(studio, "?topics=job,metric") as response:
        reader = Reader(response)
        job = await studio.submit(train("flood"))
        seen = await reader.until("job", id=job["id"], state="done")
    told = [record["data"]["step"] for record in seen if record.get("event") == "metric"]
    stored = (await studio.get(f"/api/jobs/{job['id']}/metrics?after_step={told[-1] - 1}"))["metrics"]
    assert [one["step"] for one in stored] == [told[-1]]


async def test_a_failed_transaction_tells_nobody(studio: Studio) -> None:
    before = studio.app[BUS].newest

    def fails(db: Any) -> None:
        tell(db, "job", {"id": 1})
        raise ValueError

    with pytest.raises(ValueError):
        await studio.app[DATABASE].write(fails)
    await asyncio.sleep(0.05)
    assert studio.app[BUS].newest == before
    newest = await add_events(studio, 1)
    assert newest > before
