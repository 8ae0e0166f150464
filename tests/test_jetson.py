"""A Jetson with and without jtop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_files import ORIN, ORIN_LOAD, no_gpus, read, tree

from mistudiod.monitor import Monitor, Sample

REPO = Path(__file__).parents[1]


def test_a_jetson_without_jtop_is_read_from_the_kernel_alone(tmp_path: Path) -> None:
    sample = read(tree(tmp_path, ORIN))
    assert sample["jetson"] == {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "nvmap_bytes": 500_000 * 1024,
        "watts": None,
        "power_mode": None,
        "clocks_locked": None,
    }
    assert sample["gpus"] == [
        {
            "name": "NVIDIA Jetson Orin Nano Developer Kit",
            "memory_total_bytes": 7_800_000 * 1024,
            "memory_free_bytes": 4_000_000 * 1024,
            "share": 0.437,
            "celsius": 45.25,
            "watts": None,
            "unified": True,
        }
    ]
    assert [reading["name"] for reading in sample["temperatures"]] == ["cpu-thermal", "gpu-thermal"]


def test_the_load_of_a_jetson_gpu_that_appears_late_in_boot_is_found(tmp_path: Path) -> None:
    root = tree(tmp_path, {name: content for name, content in ORIN.items() if name != ORIN_LOAD})
    monitor = Monitor(tmp_path, root, no_gpus())
    assert monitor.read()["gpus"][0]["share"] is None
    tree(root, {ORIN_LOAD: "1000\n"})
    assert monitor.read()["gpus"][0]["share"] == 1.0


def test_a_board_that_is_no_jetson_is_none(tmp_path: Path) -> None:
    files = {"proc/device-tree/model": "Raspberry Pi 5\0", "proc/device-tree/compatible": "brcm,bcm2712\0"}
    sample = read(tree(tmp_path, files))
    assert sample["jetson"] is None and sample["gpus"] == []


JTOP = """
import os, pathlib, time
from types import SimpleNamespace

class jtop:
    gpu = {"ga10b": {"type": "integrated", "status": {"load": 25.0}}}
    power = {"tot": {"power": 7350}}
    nvpmodel = SimpleNamespace(name="15W")
    jetson_clocks = None

    def __init__(self, interval):
        with open(pathlib.Path(__file__).with_name("starts"), "a") as starts:
            starts.write(f"{os.getpid()}\\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ok(self):
        time.sleep(0.05)
        return not pathlib.Path(__file__).with_name("stop").exists()
"""


@pytest.fixture
def jtop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the parts of jtop that are used, for this process to find and for the helper to import."""
    folder = tmp_path / "site"
    tree(folder, {"jtop.py": JTOP})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPO}")
    return folder


def read_until(monitor: Monitor, wanted: Callable[[Sample], bool]) -> Sample:
    end = time.monotonic() + 40  # before the helper would be started again
    while not wanted(sample := monitor.read()):
        assert time.monotonic() < end, sample
        time.sleep(0.05)
    return sample


def test_jtop_is_asked_in_a_process_of_its_own(tmp_path: Path, jtop: Path) -> None:
    root = tree(tmp_path / "root", {name: content for name, content in ORIN.items() if name != ORIN_LOAD})
    monitor = Monitor(tmp_path, root, no_gpus())
    assert not (jtop / "starts").exists()  # nothing is started before the first reading
    sample = read_until(monitor, lambda sample: bool(sample["jetson"] and sample["jetson"]["watts"]))
    assert sample["jetson"] is not None
    assert (sample["jetson"]["watts"], sample["jetson"]["power_mode"]) == (7.35, "15W")
    assert sample["jetson"]["clocks_locked"] is None
    assert sample["gpus"][0]["share"] == 0.25
    assert "jtop" not in sys.modules
    monitor.close()
    assert not Path(f"/proc/{int((jtop / 'starts').read_text())}").exists()


def test_readings_are_null_when_the_helper_died_and_it_is_not_started_again_at_once(tmp_path: Path, jtop: Path) -> None:
    monitor = Monitor(tmp_path, tree(tmp_path / "root", ORIN), no_gpus())
    read_until(monitor, lambda sample: bool(sample["jetson"] and sample["jetson"]["watts"]))
    (jtop / "stop").touch()
    sample = read_until(monitor, lambda sample: not (sample["jetson"] and sample["jetson"]["watts"]))
    assert sample["jetson"] is not None and sample["jetson"]["nvmap_bytes"] == 500_000 * 1024
    for _ in range(3):
        monitor.read()
    assert len((jtop / "starts").read_text().splitlines()) == 1
    monitor.close()


def test_the_helper_ends_when_its_stdin_does(jtop: Path) -> None:
    helper = subprocess.Popen(
        [sys.executable, "-m", "mistudiod.jtop_reader"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert helper.stdout is not None
    assert json.loads(helper.stdout.readline())["watts"] == 7.35
    helper.communicate(timeout=60)
    assert helper.returncode == 0


async def test_ending_the_loop_ends_the_helper(tmp_path: Path, jtop: Path) -> None:
    monitor = Monitor(tmp_path, tree(tmp_path / "root", ORIN), no_gpus())
    running = asyncio.create_task(monitor.run(lambda _sample: None))
    for _ in range(1000):
        if (jtop / "starts").exists() and (jtop / "starts").read_text().endswith("\n"):
            break
        await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{int((jtop / 'starts').read_text())}").exists()
