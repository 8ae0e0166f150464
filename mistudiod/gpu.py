"""NVIDIA GPUs through the driver's management library (NVML), which opens no CUDA context and takes no GPU memory.

A wedged driver blocks whoever asks it, so the asking is done in a thread that is left behind after 2 seconds.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from typing_extensions import TypedDict

LIMIT_S = 2.0
_RETRY_S = 60.0  # between two attempts to start NVML: one can take seconds of the driver's time
# Integrated GPUs share the machine's memory; what some of them report as theirs is wrong.
_INTEGRATED = ("Orin", "Thor", "Xavier", "Tegra", "nvgpu", "GB10", "N1X")

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Gpu(TypedDict):
    name: str
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    share: float | None  # 0 to 1: part of the time in which it was at work
    celsius: float | None
    watts: float | None
    unified: bool  # its memory is the machine's


def unknown(name: str, unified: bool) -> Gpu:
    return {
        "name": name,
        "memory_total_bytes": None,
        "memory_free_bytes": None,
        "share": None,
        "celsius": None,
        "watts": None,
        "unified": unified,
    }


class GpuReader:
    """Asks for all GPUs, waiting at most LIMIT_S. While there is no answer, known GPUs have unknown readings.

    ``ask`` gives the GPUs in the driver's order, or None when it cannot say; NVML when not given.
    """

    def __init__(self, ask: Callable[[], list[Gpu] | None] | None = None) -> None:
        self._patience = Patience(ask or Nvml().read)
        self._gpus: list[Gpu] = []

    def read(self) -> list[Gpu]:
        gpus = self._patience.ask()
        self._gpus = gpus if gpus is not None else _unknown(self._gpus)
        return [gpu.copy() for gpu in self._gpus]


class Patience(Generic[T]):
    """Asks the driver in a thread, one question at a time, and waits at most LIMIT_S for the answer."""

    def __init__(self, question: Callable[[], T | None]) -> None:
        self._question = question
        self._asking = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answer: T | None = None
        self._failed = False

    def ask(self) -> T | None:
        """The answer, or None when there is none (yet)."""
        with self._asking:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="gpus", daemon=True)
                self._thread.start()
                self._thread.join(LIMIT_S)
            return None if self._thread.is_alive() else self._answer

    def _run(self) -> None:
        try:
            self._answer, self._failed = self._question(), False
        except Exception:
            if not self._failed:  # once, not every second
                logger.exception("the GPUs cannot be read")
            self._answer, self._failed = None, True


def _unknown(gpus: list[Gpu]) -> list[Gpu]:
    return [unknown(gpu["name"], gpu["unified"]) for gpu in gpus]


def load_nvml() -> Any | None:
    """The module ``pynvml`` of nvidia-ml-py, or None without it or without the driver's library."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # the module is large: no driver, no import
        return importlib.import_module("pynvml")
    except (OSError, ImportError):
        return None


class Nvml:
    """Starts NVML when first read, and anew when the driver was reloaded or a GPU was lost."""

    def __init__(self, load: Callable[[], Any | None] = load_nvml) -> None:
        self._load = load
        self._nvml: Any | None = None
        self._retry_at = 0.0

    def read(self) -> list[Gpu] | None:
        return self._of_each(_read_gpu)

    def processes(self) -> dict[int, int] | None:
        """GPU memory that each process has, bytes; None without a GPU, or when one of them does not tell."""
        total: dict[int, int] = {}
        for used in self._of_each(_read_processes) or [None]:
            if used is None:
                return None
            for pid, size in used.items():
                total[pid] = total.get(pid, 0) + size
        return total

    def _of_each(self, ask: Callable[[Any, Any], T]) -> list[T] | None:
        nvml = self._nvml or self._start()
        if nvml is None:
            return None
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            return [ask(nvml, handle) for handle in handles]
        except nvml.NVMLError as error:
            logger.warning("NVML gives no answer and will be started again: %s", error)
            self._nvml = None
            return None

    def _start(self) -> Any | None:
        if time.monotonic() < self._retry_at:
            return None
        self._retry_at = time.monotonic() + _RETRY_S
        nvml = self._load()
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            logger.info("NVML cannot be started: %s", error)
            return None
        self._nvml = nvml
        return nvml


def _read_gpu(nvml: Any, handle: Any) -> Gpu:
    name = _ask(nvml, nvml.nvmlDeviceGetName, handle)
    name = name.decode() if isinstance(name, bytes) else name or "NVIDIA GPU"
    memory, supported = _memory(nvml, handle)
    unified = not supported or any(word in name for word in _INTEGRATED)
    gpu = unknown(name, unified)
    if memory is not None and not unified:
        gpu["memory_total_bytes"], gpu["memory_free_bytes"] = int(memory.total), int(memory.free)
    rates = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    gpu["share"] = rates.gpu / 100 if rates is not None else None
    celsius = _ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    gpu["celsius"] = float(celsius) if celsius is not None else None
    milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    gpu["watts"] = milliwatts / 1000 if milliwatts else None  # Tegra says 0 for "not measured"
    return gpu


def _memory(nvml: Any, handle: Any) -> tuple[Any | None, bool]:
    """Memory, and whether this GPU has any of its own. Version 2 keeps apart what the driver has reserved."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2), True
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return None, False
    return _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle), True  # a driver from before 2022


def _read_processes(nvml: Any, handle: Any) -> dict[int, int] | None:
    """Bytes of each process on one GPU; None when the driver does not say (integrated GPUs, WSL)."""
    used: dict[int, int] = {}
    for call in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        processes = _ask(nvml, call, handle)
        if processes is None or any(one.usedGpuMemory is None for one in processes):
            return None
        for one in processes:  # a process that computes and draws is in both lists, with the same number
            used[one.pid] = max(used.get(one.pid, 0), one.usedGpuMemory)
    return used


def _ask(nvml: Any, call: Callable[..., Any], *args: Any) -> Any | None:
    """The answer, or None when this GPU does not know it. Raises when NVML itself must be started again."""
    try:
        return call(*args)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_GPU_IS_LOST):
            raise
        return None
