"""What event streams cost the daemon: 100 readers, 5 events a second each, its CPU time over half a minute.

    python bench/events.py [--readers 100] [--seconds 30]

The daemon is a process of its own, without a job; a client posts nothing: the events are edits of a queued job's
priority, five a second, each of which goes to every reader. The CPU time of a daemon without readers that gets the same
edits is measured beside it, in turns, and medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from studio import running

EVENTS_PER_S = 5
ROUNDS = 3


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def read(session: aiohttp.ClientSession, url: str, heard: list[int], me: int) -> None:
    async with session.get(f"{url}/api/events?topics=job", timeout=aiohttp.ClientTimeout(total=None)) as stream:
        async for line in stream.content:
            heard[me] += line.startswith(b"event: job")


async def measure(url: str, pid: int, job: int, readers: int, seconds: float) -> tuple[float, float]:
    """Share of a core, and share of the events that were heard."""
    heard = [0] * readers
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(read(session, url, heard, n)) for n in range(readers)]
        await asyncio.sleep(2)
        before, begun, sent = cpu_seconds(pid), time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            body = {"priority": sent % 100}
            async with session.patch(f"{url}/api/jobs/{job}", json=body) as answer:
                assert answer.status == 200, await answer.text()
            sent += 1
            await asyncio.sleep(max(0.0, begun + sent / EVENTS_PER_S - time.monotonic()))
        share = (cpu_seconds(pid) - before) / (time.monotonic() - begun)
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return share, (sum(heard) / (readers * sent) if readers else 1.0)


async def queued_job(url: str) -> int:
    """A job that never starts: it waits for one that runs until it is told to stop."""
    async with aiohttp.ClientSession() as session:
        found = []
        for name, after in (("slow", []), ("ok", [1])):
            spec = {"kind": "add_dataset", "source": "builtin:python", "name": name}
            async with session.post(f"{url}/api/jobs", json={"spec": spec, "after": after}) as answer:
                found.append((await answer.json())["id"])
        await asyncio.sleep(1)
        async with session.post(f"{url}/api/jobs/{found[0]}/pause") as answer:
            assert answer.status == 200, await answer.text()
        await asyncio.sleep(2)
    return found[1]


def pid_of(url: str) -> int:
    """The process that listens there, by /proc: the child that was started for it."""
    import psutil

    port = int(url.rpartition(":")[2])
    for process in psutil.Process().children(recursive=True):
        if any(c.laddr.port == port for c in process.net_connections() if c.status == "LISTEN"):
            return process.pid
    raise LookupError(url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as url:
        job, pid = asyncio.run(queued_job(url)), pid_of(url)
        alone, together, heard = [], [], []
        idle_mb = rss_mb(pid)
        for _ in range(ROUNDS):
            alone.append(asyncio.run(measure(url, pid, job, 0, options.seconds / 2))[0])
            share, part = asyncio.run(measure(url, pid, job, options.readers, options.seconds))
            together.append(share)
            heard.append(part)
        busy_mb = rss_mb(pid)
    what = f"{options.readers} readers, {EVENTS_PER_S} events/s each"
    print(f"{what}, median of {ROUNDS} rounds of {options.seconds:g} s")
    busy, quiet = statistics.median(together), statistics.median(alone)
    print(f"  CPU of the daemon   {busy:.2%} of a core (no readers: {quiet:.2%})")
    print(f"  events heard        {min(heard):.2%}")
    print(f"  RSS                 {idle_mb:.1f} MB before, {busy_mb:.1f} MB after")


if __name__ == "__main__":
    main()
