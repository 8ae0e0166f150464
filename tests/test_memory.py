"""Memory of a worker as it is measured: its whole process group, and what it has of the GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel_files import tree
from test_gpu import Driver

from mistudiod.gpu import Nvml
from mistudiod.memory import Meter, measured

MIB = 1 << 20
# A leader with 64 MiB of its own and a child of the same group with 32 MiB.
LEADER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "x = bytearray(b'x') * (32 << 20); print(flush=True); input()"], stdout=subprocess.PIPE, stdin=sys.stdin)
child.stdout.readline()
x = bytearray(b"x") * (64 << 20)
print(flush=True)
child.wait()
"""


@pytest.fixture
def worker() -> Iterator[int]:
    command = [sys.executable, "-c", LEADER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate(b"\n")


def test_a_worker_is_measured_with_the_processes_it_has_started(worker: int) -> None:
    size, _ = measured(worker)
    assert size is not None
    assert 96 * MIB < size < 150 * MIB


def test_what_has_ended_has_no_memory() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    assert measured(process.pid) == (None, None)


def test_another_groups_processes_do_not_count() -> None:
    leader = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        size, _ = measured(leader.pid)
        assert size is not None and size < 10 * MIB
    finally:
        leader.kill()
        leader.wait()


def processes(tmp_path: Path) -> Path:
    """A group 7 of the processes 7 and 8, named as nastily as a process can be, and a stranger."""
    stat = "{} (a) S 1) S 1 {} 7 0 -1 4194560 0 0"
    files = {"proc/7/stat": stat.format(7, 7), "proc/8/stat": stat.format(8, 7), "proc/9/stat": stat.format(9, 9)}
    return tree(tmp_path, files)


def test_a_share_of_common_pages_is_counted_and_an_old_kernels_resident_pages_where_it_knows_no_shares(
    tmp_path: Path,
) -> None:
    root = tree(
        processes(tmp_path),
        {
            "proc/7/smaps_rollup": "00400000-7ffe [rollup]\nRss:  900 kB\nPss:      512 kB\nPss_Anon: 1 kB\n",
            "proc/8/statm": "1000 25 10 1 0 1 0",
        },
    )
    assert Meter(root, dict).measured(7) == (512 * 1024 + 25 * os.sysconf("SC_PAGE_SIZE"), 0)


def test_a_group_that_nothing_can_be_read_of_is_unknown(tmp_path: Path) -> None:
    assert Meter(processes(tmp_path), lambda: None).measured(7) == (None, None)


class Busy(Driver):
    """A GPU at work, as the driver lists it."""

    def __init__(self, compute: list[tuple[int, int | None]], graphics: list[tuple[int, int | None]]) -> None:
        super().__init__()
        self.lists = {
            "nvmlDeviceGetComputeRunningProcesses": compute,
            "nvmlDeviceGetGraphicsRunningProcesses": graphics,
        }

    def __getattr__(self, name: str) -> Any:
        if name in self.lists and name not in self.refused:
            return lambda _handle: [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.lists[name]]
        return super().__getattr__(name)


def gpu_bytes(root: Path, driver: Driver) -> int | None:
    return Meter(root, Nvml(lambda: driver).processes).measured(7)[1]


def test_gpu_memory_is_that_of_the_group_and_a_process_on_both_lists_counts_once(tmp_path: Path) -> None:
    root = processes(tmp_path)
    assert gpu_bytes(root, Busy([(7, 4 * MIB), (9, 99 * MIB)], [(7, 4 * MIB), (8, MIB)])) == 5 * MIB


def test_a_group_without_a_gpu_has_0_bytes_of_it(tmp_path: Path) -> None:
    assert gpu_bytes(processes(tmp_path), Busy([(9, 99 * MIB)], [])) == 0


def test_a_driver_that_lists_other_process_ids_than_ours_leaves_it_unknown(tmp_path: Path) -> None:
    """As in a container: the process has the GPU open, and the driver knows it by its number outside."""
    root = processes(tmp_path)
    (root / "proc/8/fd").mkdir()
    (root / "proc/8/fd/5").symlink_to("/dev/nvidia0")
    assert gpu_bytes(root, Busy([(4711, 99 * MIB)], [])) is None


@pytest.mark.parametrize("name", ["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"])
def test_a_gpu_that_keeps_no_list_leaves_it_unknown(tmp_path: Path, name: str) -> None:
    driver = Busy([(7, MIB)], [])
    driver.refused[name] = driver.NVML_ERROR_NOT_SUPPORTED
    assert gpu_bytes(processes(tmp_path), driver) is None


def test_a_size_that_the_driver_does_not_say_is_unknown(tmp_path: Path) -> None:
    assert gpu_bytes(processes(tmp_path), Busy([(7, None)], [])) is None


def test_without_a_driver_it_is_unknown(tmp_path: Path) -> None:
    assert Meter(processes(tmp_path), Nvml(lambda: None).processes).measured(7)[1] is None
