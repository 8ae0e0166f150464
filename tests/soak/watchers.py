"""Twenty readers of events, in a process of their own: ``python -m tests.soak.watchers URL``.

They come and go, every fifth is slow, every other comes back to where it was. Each second the process says what it
has seen as a line of JSON: ``{"open", "latencies_ms"}``, until its stdin ends. A latency is the time from the moment
that an event names as its own (a job's ``created_at``, ``started_at`` or ``ended_at``, a reading's ``at``) until it
was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

READERS = 20
_LIFE_S = (5.0, 60.0)
_SLOW_S = 2.0  # between two reads of a slow reader
_MOMENT = {"queued": "created_at", "running": "started_at", "done": "ended_at", "stopped": "ended_at"}


class Watchers:
    """The process, as the soak sees it."""

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self.latencies_ms: list[float] = []
        self.open = 0
        command = [sys.executable, "-m", "tests.soak.watchers", url]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environ)
        )
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Watchers:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.open = said["open"]
            self.latencies_ms += said["latencies_ms"]


class Latency:
    """Of the events of one stream. What a reader did not see change is not measured: it may be older."""

    def __init__(self) -> None:
        self._states: dict[int, str] = {}

    def of(self, topic: str, data: Mapping[str, Any], now: datetime) -> float | None:
        """Milliseconds; None of an event that names no moment of its own."""
        if topic == "system":
            return _since(data["at"], now)
        if topic != "job" or "state" not in data:
            return None
        before, state = self._states.get(data["id"]), data["state"]
        self._states[data["id"]] = state
        if state not in _MOMENT or before == state or (before is None) != (state == "queued"):
            return None
        if state == "queued" and data["started_at"]:
            return None  # queued again: that moment is not kept
        return _since(data[_MOMENT[state]], now)


def _since(moment: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(moment.replace("Z", "+00:00"))).total_seconds() * 1000


class Reading:
    def __init__(self, url: str, session: ClientSession) -> None:
        self._url, self._session = url, session
        self.open = 0
        self.latencies_ms: list[float] = []

    async def reader(self, number: int) -> None:
        """For ever: a stream, and after it another."""
        chance, last = random.Random(number), ""
        while True:
            with contextlib.suppress(ClientError, asyncio.TimeoutError, ConnectionError):
                life = chance.uniform(*_LIFE_S)
                last = await asyncio.wait_for(self._stream(last, slow=number % 5 == 0, life_s=life), life + 30)
            if number % 2:
                last = ""
            await asyncio.sleep(chance.uniform(0.1, 2.0))

    async def _stream(self, last: str, slow: bool, life_s: float) -> str:
        """The last event's id."""
        headers = {"Last-Event-ID": last} if last else {}
        latency, topic, end = Latency(), "", asyncio.get_running_loop().time() + life_s
        async with self._session.get(f"{self._url}/api/events", headers=headers) as answer:
            self.open += 1
            try:
                while asyncio.get_running_loop().time() < end and (line := await answer.content.readline()):
                    name, _, said = line.decode().rstrip("\n").partition(": ")
                    if name == "id":
                        last = said
                    elif name == "event":
                        topic = said
                    elif name == "data" and not slow and not headers:  # what is replayed is old
                        found = latency.of(topic, json.loads(said), datetime.now(timezone.utc))
                        self.latencies_ms += [] if found is None else [round(found, 2)]
                    if slow:
                        await asyncio.sleep(_SLOW_S)
            finally:
                self.open -= 1
        return last

    async def tell(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            latencies, self.latencies_ms = self.latencies_ms, []
            print(json.dumps({"open": self.open, "latencies_ms": latencies}), flush=True)


async def main(url: str) -> None:
    async with ClientSession(timeout=ClientTimeout(None, connect=30), read_bufsize=1 << 22) as session:
        reading = Reading(url, session)
        tasks = [asyncio.create_task(one) for one in (*map(reading.reader, range(READERS)), reading.tell())]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
