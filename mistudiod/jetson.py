"""A Jetson's own readings: the device tree, the load of its GPU, and jtop where the user has installed it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from mistudiod.gpu import Gpu, unknown
from mistudiod.host import Temperature, number, text

_RESTART_S = 60.0  # between two starts of the helper
_STALE_S = 5.0  # a helper that says nothing for so long says nothing
_LINE_BYTES = 65_536
# Where the kernel tells the load of the integrated GPU, in thousandths; JetPack moves it. VIC and NVENC have one too.
_LOADS = (
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    *(f"sys/class/devfreq/*.{name}/device/load" for name in ("gpu", "ga10b", "gv11b", "gp10b")),
    *(f"sys/devices/{place}*.gpu/load" for place in ("", "platform/", "platform/bus@0/")),
)


class JetsonReading(TypedDict):
    model: str
    nvmap_bytes: int | None  # memory that the GPU's driver holds
    watts: float | None  # the whole board
    power_mode: str | None
    clocks_locked: bool | None


def find_model(root: Path) -> str | None:
    """The board's name from the device tree, None when this is no Jetson."""
    model = text(root / "proc/device-tree/model")
    compatible = text(root / "proc/device-tree/compatible") or ""
    return model if model and ("Jetson" in model or "nvidia,tegra" in compatible) else None


class Jetson:
    """Reads one board. ``model`` is what find_model() gave."""

    def __init__(self, root: Path, model: str) -> None:
        self._root, self.model = root, model
        self._load: Path | None = None
        self._jtop = Jtop() if importlib.util.find_spec("jtop") else None

    def read(self, info: dict[str, int]) -> tuple[JetsonReading, float | None]:
        """The board, and the share of time in which its GPU was at work. ``info`` is /proc/meminfo in bytes."""
        said = self._jtop.read() if self._jtop else {}
        watts, mode, locked = said.get("watts"), said.get("power_mode"), said.get("clocks_locked")
        reading: JetsonReading = {
            "model": self.model,
            "nvmap_bytes": info.get("NvMapMemUsed"),
            "watts": watts if isinstance(watts, float) else None,
            "power_mode": mode if isinstance(mode, str) else None,
            "clocks_locked": locked if isinstance(locked, bool) else None,
        }
        share = self._gpu_share()
        if share is None and isinstance(said.get("gpu_share"), float):
            share = min(max(said["gpu_share"], 0.0), 1.0)
        return reading, share

    def _gpu_share(self) -> float | None:
        if self._load is None:  # looked for again each time: early at boot it is not there yet
            found = (path for pattern in _LOADS for path in self._root.glob(pattern))
            self._load = next(found, None)
        load = number(self._load) if self._load else None
        return min(load / 1000, 1.0) if load is not None and load >= 0 else None

    def close(self) -> None:
        if self._jtop:
            self._jtop.close()


def with_own_gpu(gpus: list[Gpu], model: str, share: float | None, temperatures: list[Temperature]) -> list[Gpu]:
    """The GPUs with the board's own among them: on Tegra the kernel's readings go before NVML's, which are often 0."""
    own = next((gpu for gpu in gpus if gpu["unified"]), None)
    if own is None and gpus and share is None:
        return gpus  # a board that runs its plugged-in GPU instead of its own
    if own is None:
        own = unknown(model, unified=True)
        gpus = [own, *gpus]
    sensors = [sensor["celsius"] for sensor in temperatures if "gpu" in sensor["name"].lower()]
    celsius = next((degrees for degrees in sensors if degrees is not None), None)
    own["share"] = share if share is not None else own["share"]
    own["celsius"] = celsius if celsius is not None else own["celsius"]
    return gpus


class Jtop:
    """The helper process that talks to jtop, started when first read and again at most once a minute."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._rest = b""
        self._said: dict[str, Any] = {}
        self._said_at = 0.0
        self._closed = False
        self._lock = threading.Lock()  # close() may come while a reading is under way

    def read(self) -> dict[str, Any]:
        """The helper's last line, empty when it has died or fallen silent."""
        with self._lock:
            now = time.monotonic()
            if self._process is not None and self._process.poll() is not None:
                self._forget()
            if self._process is None and now >= self._start_at and not self._closed:
                self._start_at = now + _RESTART_S
                self._start()
            if self._process is not None:
                self._listen(self._process, now)
            return self._said if now - self._said_at < _STALE_S else {}

    def _start(self) -> None:
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mistudiod.jtop_reader"],
                stdin=subprocess.PIPE,  # its end is the helper's end, also when the daemon is killed
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)

    def _listen(self, process: subprocess.Popen[bytes], now: float) -> None:
        """Take what is in the pipe; the last whole line counts."""
        assert process.stdout is not None
        while chunk := process.stdout.read(_LINE_BYTES):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._rest = self._rest[-_LINE_BYTES:]
            if lines:
                with contextlib.suppress(ValueError):
                    said = json.loads(lines[-1])
                    self._said, self._said_at = (said if isinstance(said, dict) else {}), now

    def _forget(self) -> None:
        process, self._process, self._rest, self._said = self._process, None, b"", {}
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._forget()
