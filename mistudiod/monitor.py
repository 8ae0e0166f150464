"""One reading of the machine a second. Standard library only; unknown is None, never invented."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from typing_extensions import TypedDict

from mistudiod.gpu import Gpu, GpuReader
from mistudiod.host import Cpu, CpuReader, Memory, Temperature, TemperatureReader, meminfo, memory
from mistudiod.jetson import Jetson, JetsonReading, find_model, with_own_gpu
from mistudiod.jobs import now

EVERY_S = 1.0
KEPT = 600  # samples: the last ten minutes

logger = logging.getLogger(__name__)


class Disk(TypedDict):
    path: str
    total_bytes: int | None
    free_bytes: int | None  # for the daemon's user: what the file system keeps for root is not free


class Sample(TypedDict):
    """Ready for JSON. ``at`` is UTC, ISO 8601."""

    at: str
    cpu: Cpu
    memory: Memory
    disk: Disk
    temperatures: list[Temperature]
    gpus: list[Gpu]
    jetson: JetsonReading | None


class Monitor:
    """Reads the machine; ``history`` holds what run() has read. ``began``: when the newest was begun, in seconds of
    time.monotonic(); nothing in it is older.

    ``data`` is the folder whose disk is watched; ``root`` is where /proc and /sys lie; ``gpus`` asks for the GPUs,
    through NVML when not given.
    """

    def __init__(self, data: Path, root: Path = Path("/"), gpus: GpuReader | None = None) -> None:
        self.history: deque[Sample] = deque(maxlen=KEPT)
        self.began = -math.inf
        self._data, self._root = data, root
        self._cpu, self._temperatures = CpuReader(root), TemperatureReader(root)
        self._gpus = gpus or GpuReader()
        model = find_model(root)
        self._jetson = Jetson(root, model) if model else None

    def read(self) -> Sample:
        """One sample. It blocks (2 s at most for the GPUs): call it in a thread, one call at a time.

        CPU shares are those since the last call, so the first sample has none.
        """
        info = meminfo(self._root)
        sensors = self._temperatures.read()
        gpus = self._gpus.read()
        board = None
        if self._jetson:
            board, share = self._jetson.read(info)
            gpus = with_own_gpu(gpus, self._jetson.model, share, sensors)
        for gpu in gpus:
            if gpu["unified"]:  # the kernel's number: CUDA's leaves out page cache that would be given back
                gpu["memory_total_bytes"], gpu["memory_free_bytes"] = info.get("MemTotal"), info.get("MemAvailable")
        return {
            "at": now(),
            "cpu": self._cpu.read(),
            "memory": memory(self._root, info),
            "disk": _disk(self._data),
            "temperatures": sensors,
            "gpus": gpus,
            "jetson": board,
        }

    async def run(self, on_sample: Callable[[Sample], None]) -> None:
        """Read once a second until cancelled, keep each sample in ``history`` and hand it to ``on_sample``.

        A reading that fails is logged and left out; one that takes too long delays the next and is not made up for.
        """
        loop = asyncio.get_running_loop()
        due, failing = loop.time(), False
        try:
            while True:
                began = time.monotonic()
                try:
                    sample = await asyncio.to_thread(self.read)
                    self.began = began
                    self.history.append(sample)
                    on_sample(sample)
                    failing = False
                except Exception:
                    if not failing:  # once, not every second
                        logger.exception("a reading of the machine failed")
                    failing = True
                due = max(due + EVERY_S, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            self.close()

    def close(self) -> None:
        """End the helper process, if there is one. run() does it by itself."""
        if self._jetson:
            self._jetson.close()


def _disk(path: Path) -> Disk:
    try:
        disk = os.statvfs(path)
    except OSError:
        return {"path": str(path), "total_bytes": None, "free_bytes": None}
    return {
        "path": str(path),
        "total_bytes": disk.f_blocks * disk.f_frsize,
        "free_bytes": disk.f_bavail * disk.f_frsize,
    }
