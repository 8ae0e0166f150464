"""The System Monitor: one sample a second."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
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


async def test_samples_come_once_a_second_and_are_kept(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    monitor = Monitor(tmp_path, tmp_path, no_gpus())
    running = asyncio.create_task(monitor.run(lambda _sample: times.append(loop.time())))
    await asyncio.sleep(2.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(times) == len(monitor.history) == 3
    assert times[2] - times[0] == pytest.approx(2.0, abs=0.3)
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
    class Slow(Monitor):
        readings = 0

        def read(self) -> Sample:
            self.readings += 1
            if self.readings == 1:
                time.sleep(2.6)
            return super().read()

    monitor = Slow(tmp_path, tmp_path, no_gpus())
    running = asyncio.create_task(monitor.run(lambda _sample: None))
    await asyncio.sleep(3.2)
    assert monitor.readings == 2  # the late one is followed at once by the next, and that one by none
    running.cancel()


async def test_the_loop_stays_free_and_can_be_cancelled_while_a_reading_hangs(tmp_path: Path) -> None:
    class Hanging(Monitor):
        def read(self) -> Sample:
            time.sleep(1.5)
            return super().read()

    running = asyncio.create_task(Hanging(tmp_path, tmp_path, no_gpus()).run(lambda _sample: None))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - began < 0.5


def test_importing_the_monitor_takes_in_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, mistudiod.monitor; "
        "heavy = {'torch', 'numpy', 'psutil', 'pynvml', 'jtop', 'pydantic', 'aiohttp'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
