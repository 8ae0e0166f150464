"""The System Monitor: one sample a second."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_files import no_gpus

from mistudiod.monitor import KEPT, Monitor, Sample

REPO = Path(__file__).parents[1]


def test_this_machine_can_be_read_and_sent_as_json(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.read()
    sample = json.loads(json.dumps(monitor.read(), allow_nan=False))
    assert list(sample) == ["at", "cpu", "memory", "disk", "temperatures", "gpus", "jetson"]
    assert sample["at"].endswith("Z")
    assert 0 < sample["memory"]["available_bytes"] <= sample["memory"]["total_bytes"]
    assert 0 < sample["disk"]["free_bytes"] <= sample["disk"]["total_bytes"]
    assert all(share is None or 0 <= share <= 1 for share in sample["cpu"]["per_core"])
    monitor.close()


async def lateness_until(true: Callable[[], bool]) -> float:
    """By how many seconds in all this machine has let its loop and its threads wait until then."""
    late_s, end = 0.0, time.monotonic() + 60
    while not true():
        due = time.monotonic() + 0.02
        assert due < end
        await asyncio.sleep(0.02)
        await asyncio.to_thread(time.monotonic)
        late_s += time.monotonic() - due
    return late_s


async def test_samples_come_once_a_second_and_are_kept(tmp_path: Path) -> None:
    times: list[float] = []
    monitor = Monitor(tmp_path, tmp_path, no_gpus())
    began = time.monotonic()
    running = asyncio.create_task(monitor.run(lambda _sample: times.append(time.monotonic())))
    late_s = await lateness_until(lambda: len(times) == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(times) == len(monitor.history) == 3
    assert times[1] - began > 0.99 and 1.99 < times[2] - began < 2.3 + late_s
    assert monitor.history.maxlen == KEPT == 600


async def test_a_reading_that_fails_does_not_end_the_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Shaky(Monitor):
        readings = 0

        def read(self) -> Sample:
            self.readings += 1
            if self.readings < 3:
                raise OSError("the kernel is in a bad mood")
            return super().read()

    came = asyncio.Event()
    running = asyncio.create_task(Shaky(tmp_path, tmp_path, no_gpus()).run(lambda _sample: came.set()))
    await asyncio.wait_for(came.wait(), 10)
    running.cancel()
    assert len(caplog.records) == 1  # two failures in a row, said once


async def test_a_slow_reading_is_not_made_up_for(tmp_path: Path) -> None:
    began, ended = [], []

    class Slow(Monitor):
        def read(self) -> Sample:
            began.append(time.monotonic())
            if len(began) == 1:
                time.sleep(2.6)
            sample = super().read()
            ended.append(time.monotonic())
            return sample

    running = asyncio.create_task(Slow(tmp_path, tmp_path, no_gpus()).run(lambda _sample: None))
    late_s = await lateness_until(lambda: len(began) == 3)
    # The late one is followed at once by the next, and that one by none until its second is over.
    assert began[1] - ended[0] < 0.6 + late_s and began[2] - ended[0] > 0.99
    running.cancel()


async def test_the_loop_stays_free_and_can_be_cancelled_while_a_reading_hangs(tmp_path: Path) -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    class Hanging(Monitor):
        def read(self) -> Sample:
            hangs.set()
            goes_on.wait(60)
            return super().read()

    running = asyncio.create_task(Hanging(tmp_path, tmp_path, no_gpus()).run(lambda _sample: None))
    try:
        while not hangs.is_set():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 10)
    finally:
        goes_on.set()


def test_importing_the_monitor_takes_in_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, mistudiod.monitor; "
        "heavy = {'torch', 'numpy', 'psutil', 'pynvml', 'jtop', 'pydantic', 'aiohttp'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
