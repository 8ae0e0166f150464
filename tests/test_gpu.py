"""NVIDIA GPUs: what the driver says, what it does not know, and when it hangs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel_files import GIB, MEMINFO, ORIN, ORIN_LOAD, tree

from mistudiod.gpu import Gpu, GpuReader, Nvml, unknown
from mistudiod.monitor import Monitor


class Driver:
    """Answers as NVML does, raising the errors of the real module; ``refused`` maps a call's name to its error."""

    def __init__(self, name: str = "NVIDIA H100") -> None:
        pynvml = pytest.importorskip("pynvml")
        self.error, self.name, self.started = pynvml.NVMLError, name, 0
        self.refused: dict[str, int] = {}
        self.constants = pynvml

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetName": self.name,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=42),
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 215_500,
        }
        if not name.startswith("nvmlDevice"):
            return getattr(self.constants, name)

        def call(*_args: object, version: int | None = None) -> Any:
            if (key := name + ("_v2" if version else "")) in self.refused:
                raise self.error(self.refused[key])
            if name == "nvmlDeviceGetMemoryInfo":
                return SimpleNamespace(total=80 * GIB, free=70 * GIB if version else 69 * GIB)
            return answers[name]

        return call

    def nvmlInit(self) -> None:
        self.started += 1
        if "nvmlInit" in self.refused:
            raise self.error(self.refused["nvmlInit"])


def test_a_discrete_gpu_is_read_in_full(tmp_path: Path) -> None:
    driver = Driver()
    gpus = GpuReader(Nvml(lambda: driver).read)
    assert Monitor(tmp_path, tree(tmp_path, {"proc/meminfo": MEMINFO}), gpus).read()["gpus"] == [
        {
            "name": "NVIDIA H100",
            "memory_total_bytes": 80 * GIB,
            "memory_free_bytes": 70 * GIB,
            "share": 0.42,
            "celsius": 61.0,
            "watts": 215.5,
            "unified": False,
        }
    ]


@pytest.mark.parametrize(
    ("name", "refuses"),
    [("NVIDIA RTX 9999", True), ("NVIDIA GB10", False)],  # a device that says so, and one that reports nonsense
)
def test_a_gpu_without_memory_of_its_own_has_that_of_the_machine(tmp_path: Path, name: str, refuses: bool) -> None:
    driver = Driver(name)
    if refuses:
        driver.refused["nvmlDeviceGetMemoryInfo_v2"] = driver.NVML_ERROR_NOT_SUPPORTED
    root = tree(tmp_path, {"proc/meminfo": MEMINFO})
    (gpu,) = Monitor(tmp_path, root, GpuReader(Nvml(lambda: driver).read)).read()["gpus"]
    assert gpu["unified"]
    assert (gpu["memory_total_bytes"], gpu["memory_free_bytes"]) == (16 * GIB, 8 * GIB)


def test_an_old_driver_is_asked_in_the_old_way_and_what_it_does_not_know_is_null() -> None:
    driver = Driver()
    driver.refused["nvmlDeviceGetMemoryInfo_v2"] = driver.NVML_ERROR_FUNCTION_NOT_FOUND
    driver.refused["nvmlDeviceGetPowerUsage"] = driver.NVML_ERROR_NOT_SUPPORTED
    (gpu,) = GpuReader(Nvml(lambda: driver).read).read()
    assert gpu["memory_free_bytes"] == 69 * GIB
    assert gpu["watts"] is None


def test_nvml_is_started_anew_when_the_driver_was_reloaded_but_not_over_and_over() -> None:
    driver = Driver()
    nvml = Nvml(lambda: driver)
    reader = GpuReader(nvml.read)
    assert reader.read()[0]["celsius"] == 61.0
    driver.refused["nvmlDeviceGetUtilizationRates"] = driver.NVML_ERROR_UNINITIALIZED
    assert reader.read() == [unknown("NVIDIA H100", unified=False)]
    driver.refused.clear()
    assert reader.read() == [unknown("NVIDIA H100", unified=False)]  # the last start was less than a minute ago
    assert driver.started == 1
    nvml._retry_at = 0.0
    assert reader.read()[0]["celsius"] == 61.0
    assert driver.started == 2


def test_a_driver_that_cannot_be_started_gives_no_gpus() -> None:
    driver = Driver()
    driver.refused["nvmlInit"] = driver.NVML_ERROR_DRIVER_NOT_LOADED
    assert GpuReader(Nvml(lambda: driver).read).read() == []
    assert GpuReader(Nvml(lambda: None).read).read() == []


def test_a_wedged_driver_costs_two_seconds_once_and_its_gpus_stay_with_unknown_readings() -> None:
    for _ in range(3):  # a machine that has something else to do for a moment has not each time
        first, second = costs_of_a_wedged_driver()
        if first < 2.5 and second < 0.2:
            break
    assert 1.9 < first < 2.5 and second < 0.2


def costs_of_a_wedged_driver() -> list[float]:
    """Of the two readings, s, after one that was answered."""
    asked, over, costs = list[bool](), threading.Event(), list[float]()

    def ask() -> list[Gpu]:
        if asked:
            over.wait()
        asked.append(True)
        return _one_gpu()

    reader = GpuReader(ask)
    assert reader.read() == _one_gpu()
    for _ in range(2):
        began = time.monotonic()
        assert reader.read() == [unknown("one", unified=False)]
        costs.append(time.monotonic() - began)
    over.set()
    return costs


def _one_gpu() -> list[Gpu]:
    return [{**unknown("one", unified=False), "share": 0.5}]


def test_an_error_nobody_thought_of_makes_the_gpus_unknown_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> list[Gpu]:
        raise ZeroDivisionError

    reader = GpuReader(broken)
    assert reader.read() == [] and reader.read() == []
    assert len(caplog.records) == 1


def test_on_a_jetson_the_kernel_is_believed_before_nvml(tmp_path: Path) -> None:
    driver = Driver("Orin (nvgpu)")
    (gpu,) = Monitor(tmp_path, tree(tmp_path, ORIN), GpuReader(Nvml(lambda: driver).read)).read()["gpus"]
    assert (gpu["name"], gpu["share"], gpu["celsius"], gpu["unified"]) == ("Orin (nvgpu)", 0.437, 45.25, True)


def test_a_jetson_that_runs_a_plugged_in_gpu_alone_is_not_given_a_second_one(tmp_path: Path) -> None:
    driver = Driver("NVIDIA RTX 6000 Ada Generation")
    root = tree(tmp_path, {name: content for name, content in ORIN.items() if name != ORIN_LOAD})
    (gpu,) = Monitor(tmp_path, root, GpuReader(Nvml(lambda: driver).read)).read()["gpus"]
    assert (gpu["name"], gpu["unified"]) == ("NVIDIA RTX 6000 Ada Generation", False)
