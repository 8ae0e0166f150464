"""Row 12 of the incident table, denial of service: floods of jobs, headers, bodies and requests, and slow senders.

Whoever floods or dawdles is told so or cut off, and somebody else is served meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from conftest import OpenStudio, Studio, dataset
from test_daemon import Daemon

from mistudiod.api import keys, route
from mistudiod.jobs import now
from mistudiod.statements import MOST_QUEUED

# -- jobs ----------------------------------------------------------------------------------------------------------


async def fill_the_queue(studio: Studio, after: int) -> None:
    """As many jobs as may wait, all of them behind a job that runs."""
    spec = json.dumps(dataset("waits"))

    def insert(db: Any) -> None:
        waiting = db.execute("select count(*) from jobs where state = 'queued'").fetchone()[0]
        for _ in range(MOST_QUEUED - waiting):
            about = ("add_dataset", "io", spec, "queued", now())
            made = db.execute("insert into jobs (kind, lane, spec, state, created_at) values (?, ?, ?, ?, ?)", about)
            db.execute("insert into dependencies values (?, ?)", (made.lastrowid, after))

    await studio.app[keys.DATABASE].write(insert)


async def test_the_queue_has_an_end_for_new_jobs_retries_and_resumed_ones(studio: Studio) -> None:
    slow = (await studio.submit(dataset("slow")))["id"]
    await studio.until(slow, "running")
    failed, paused = (await studio.submit(dataset("fail")))["id"], (await studio.submit(dataset("slow-x")))["id"]
    await studio.until(failed, "failed")
    await studio.until(paused, "running")
    await studio.act(paused, "pause")
    await studio.until(paused, "paused")
    await fill_the_queue(studio, slow)
    for path, body in (
        ("/api/jobs", {"spec": dataset("one-more")}),
        (f"/api/jobs/{failed}/retry", None),
        (f"/api/jobs/{paused}/resume", None),
    ):
        status, answer = await studio.call("POST", path, json=body)
        assert (status, answer["error"]["code"]) == (429, "too_many"), path
        assert answer["error"]["message"].startswith("1,000 jobs are queued already: let some end")
    states = [(await studio.get(f"/api/jobs/{job}"))["state"] for job in (slow, failed, paused)]
    assert states == ["running", "failed", "paused"]
    waits = (await studio.get("/api/jobs?state=queued&limit=1"))["jobs"][0]["id"]
    await studio.act(waits, "stop")
    more = await studio.submit(dataset("one-more"), after=[slow])  # it stays in the queue, which is full again
    assert more["state"] == "queued", "a place is free again, and its name too"
    assert (await studio.call("POST", f"/api/jobs/{failed}/retry"))[0] == 429


async def test_those_that_a_retry_would_queue_beyond_the_end_stay_as_they_are_and_say_why(studio: Studio) -> None:
    first = (await studio.submit(dataset("slow")))["id"]
    needed = (await studio.submit(dataset("slow-x")))["id"]
    behind = [(await studio.submit(dataset(f"ok-{n}"), after=[needed]))["id"] for n in range(3)]
    await studio.until(needed, "running")
    await studio.act(needed, "stop")
    for job in behind:
        await studio.until(job, "stopped")
    await fill_the_queue(studio, first)
    free = [one["id"] for one in (await studio.get("/api/jobs?state=queued&limit=2"))["jobs"]]
    for job in free:
        await studio.act(job, "stop")
    await studio.act(needed, "retry")
    found = [await studio.get(f"/api/jobs/{job}") for job in behind]
    assert [one["state"] for one in found].count("queued") == 1
    assert [one["error"]["code"] for one in found if one["state"] == "stopped"] == ["too_many"] * 2


# -- what is sent --------------------------------------------------------------------------------------------------

GET = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS = {  # begins, and goes on and on
    "many headers": (GET, b"X: y\r\n" * 10_000),
    "large headers": (GET, b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(100))),
    "one endless header": (GET + b"X: ", b"y" * 100_000),
    "an endless address": (b"GET /", b"y" * 100_000),
    "requests whose answers nobody reads": (b"", (GET + b"\r\n") * 1000),
    "small chunks": (CHUNKED, b"1\r\nx\r\n" * 10_000),
    "an endless chunk": (CHUNKED + b"ffffffff\r\n", b"x" * 100_000),
    "an endless extension of a chunk": (CHUNKED + b"5;", b"y" * 100_000),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 10_000),
    "a body where none belongs": (GET + b"Content-Length: 900000\r\n\r\n", b"x" * 100_000),
    "nothing but line ends": (b"", b"\r\n" * 50_000),
}
FLOOD_BYTES, FLOOD_S = 20_000_000, 1.0  # of each
MORE_RSS = 40_000_000  # bytes that all of them together may leave the daemon with


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("flooded") / "data").ready()
    yield one
    assert one.end() == 0


def connected(daemon: Daemon) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(daemon.url.rpartition(":")[2])), timeout=10)


def poured(daemon: Daemon, begin: bytes, piece: bytes) -> None:
    """Until it is enough, or the daemon takes no more of it."""
    with connected(daemon) as connection:
        connection.settimeout(0.3)
        end, sent = time.monotonic() + FLOOD_S, 0
        try:
            connection.sendall(begin)
            while sent < FLOOD_BYTES and time.monotonic() < end:
                sent += connection.send(piece)
        except OSError:  # it is cut off, or not read any further
            return


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_takes_no_memory_and_others_are_served_meanwhile(daemon: Daemon, what: str) -> None:
    daemon.call("/api/status")
    before = psutil.Process(daemon.process.pid).memory_info().rss
    floods = [threading.Thread(target=poured, args=(daemon, *FLOODS[what])) for _ in range(3)]
    for flood in floods:
        flood.start()
    while any(flood.is_alive() for flood in floods):
        assert daemon.call("/api/status")["version"]
    for flood in floods:
        flood.join()
    assert psutil.Process(daemon.process.pid).memory_info().rss - before < MORE_RSS


# -- how slowly it is sent -----------------------------------------------------------------------------------------


async def test_a_body_that_trickles_is_given_up_with_a_sentence(
    open_studio: OpenStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "_BODY_LIMIT_S", 0.4)
    studio = await open_studio()
    reader, writer = await asyncio.open_connection("127.0.0.1", studio.server.port)
    writer.write(POST + b"Content-Length: 1000\r\n\r\n")
    answer = asyncio.ensure_future(reader.readuntil(b"}}"))
    for _ in range(100):
        writer.write(b" ")
        await asyncio.sleep(0.02)
        if answer.done():
            break
    found = await asyncio.wait_for(answer, 60)
    assert found.startswith(b"HTTP/1.1 400") and b"the body did not come within" in found
    await studio.get("/api/status")
    writer.close()
    with contextlib.suppress(ConnectionError):  # a blank that came after the end is answered by a reset
        await writer.wait_closed()


@pytest.mark.drill
def test_three_hundred_who_trickle_headers_and_bodies_are_cut_off_within_a_minute(daemon: Daemon) -> None:
    """What ``serve`` has set: 30 s from the connection to the end of the headers, and 30 s more for a body."""
    held = [connected(daemon) for _ in range(300)]
    for n, one in enumerate(held):
        one.sendall(GET if n % 2 else POST + b"Content-Length: 1000\r\n\r\n")
    end, open_still = time.monotonic() + 60, set(held)
    while open_still:
        assert time.monotonic() < end, f"{len(open_still)} are open after a minute"
        for one in list(open_still):
            try:
                one.sendall(b"X" if held.index(one) % 2 else b" ")
            except OSError:
                open_still.discard(one)
        begun = time.monotonic()
        daemon.call("/api/status")
        assert time.monotonic() - begun < 10
        time.sleep(1)
    for one in held:
        one.close()
    assert psutil.Process(daemon.process.pid).num_fds() < 100
