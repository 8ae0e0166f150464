"""CPU, memory, control groups and temperatures, from small copies of the kernel's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kernel_files import GIB, MEMINFO, no_gpus, read, tree

from mistudiod.monitor import Monitor


def test_cpu_shares_are_those_between_two_readings(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\nintr 9 9 9\n"})
    monitor = Monitor(tmp_path, root, no_gpus())
    first = monitor.read()["cpu"]
    assert first["share"] is None and first["per_core"] == [None, None]
    tree(root, {"proc/stat": "cpu  30 0 20 100 50 0 0 0 9 9\ncpu0 50 0 0 50\ncpu1 0 0 0 0\nintr 9 9 9\n"})
    second = monitor.read()["cpu"]
    assert second["share"] == pytest.approx(0.25)  # waiting for the disk is idle, and guests are counted in user
    assert second["per_core"] == [0.5, None]  # core 1 has not moved: unknown, not 0


def test_a_core_that_is_offline_is_null_and_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/stat": "cpu 0 0 0 0\ncpu0 0 0 0 0\ncpu3 0 0 0 0\n"})
    monitor = Monitor(tmp_path, root, no_gpus())
    monitor.read()
    tree(root, {"proc/stat": "cpu 1 0 0 1\ncpu0 1 0 0 0\ncpu3 0 0 0 1\n"})
    assert monitor.read()["cpu"]["per_core"] == [1.0, None, None, 0.0]


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "50000 100000\n"},
        {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"},
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_a_quota_of_a_control_group_bounds_the_count_of_cores(tmp_path: Path, files: dict[str, str]) -> None:
    assert read(tree(tmp_path, files))["cpu"]["count"] == 1


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"},
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        {},
    ],
)
def test_without_a_quota_the_count_is_the_cores_of_the_affinity(tmp_path: Path, files: dict[str, str]) -> None:
    assert read(tree(tmp_path, files))["cpu"]["count"] == len(os.sched_getaffinity(0))


def test_without_control_groups_the_kernel_says_what_is_available(tmp_path: Path) -> None:
    assert read(tree(tmp_path, {"proc/meminfo": MEMINFO}))["memory"] == {
        "total_bytes": 16 * GIB,
        "available_bytes": 8 * GIB,
        "swap_total_bytes": 2 * GIB,
        "swap_free_bytes": GIB,
        "limit_bytes": None,
    }


def test_a_v2_group_bounds_what_is_available_and_its_page_cache_does_not_count(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice/mistudiod.service"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/system.slice/mistudiod.service\n",
        f"{group}/memory.max": f"{4 * GIB}\n",
        f"{group}/memory.high": f"{3 * GIB}\n",
        f"{group}/memory.current": f"{2 * GIB}\n",
        f"{group}/memory.stat": f"anon 5\ninactive_file {GIB}\n",
    }
    memory = read(tree(tmp_path, files))["memory"]
    assert memory["limit_bytes"] == 3 * GIB
    assert memory["available_bytes"] == 2 * GIB


def test_the_fullest_of_the_groups_above_decides(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/slice/unit\n",
        "sys/fs/cgroup/slice/unit/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/slice/unit/memory.current": "0\n",
        "sys/fs/cgroup/slice/memory.max": f"{6 * GIB}\n",
        "sys/fs/cgroup/slice/memory.current": f"{5 * GIB}\n",  # a neighbour holds most of it
    }
    memory = read(tree(tmp_path, files))["memory"]
    assert memory["limit_bytes"] == 2 * GIB
    assert memory["available_bytes"] == GIB


def test_in_a_container_that_shows_the_path_of_its_host_the_mount_itself_is_read(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/docker/0123abcd\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB // 2}\n",
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB // 4}\n",
    }
    memory = read(tree(tmp_path, files))["memory"]
    assert memory["limit_bytes"] == GIB
    assert memory["available_bytes"] == 3 * GIB // 4


@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "4:memory:/\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
        },
        {
            "proc/self/cgroup": "0::/unit\n",
            "sys/fs/cgroup/unit/memory.max": "max\n",
            "sys/fs/cgroup/unit/memory.high": "max\n",
            "sys/fs/cgroup/unit/memory.current": "1000\n",
        },
        {"proc/self/cgroup": "0::/../elsewhere\n"},
    ],
)
def test_a_group_without_a_limit_takes_nothing_away(tmp_path: Path, files: dict[str, str]) -> None:
    memory = read(tree(tmp_path, {"proc/meminfo": MEMINFO, **files}))["memory"]
    assert memory["limit_bytes"] is None
    assert memory["available_bytes"] == 8 * GIB


def test_a_machine_without_swap_has_none_and_not_an_unknown_amount(tmp_path: Path) -> None:
    files = {"proc/meminfo": "MemTotal: 4 kB\nMemAvailable: 2 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"}
    memory = read(tree(tmp_path, files))["memory"]
    assert (memory["swap_total_bytes"], memory["swap_free_bytes"]) == (0, 0)


def test_temperatures_come_in_order_and_each_sensor_once(tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone10/type": "x86_pkg_temp\n",
        "sys/class/thermal/thermal_zone10/temp": "51000\n",
        "sys/class/thermal/thermal_zone2/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone2/temp": "40500\n",
        "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",  # the zone again
        "sys/class/hwmon/hwmon0/temp1_input": "40500\n",
        "sys/class/hwmon/hwmon1/name": "nvme\n",
        "sys/class/hwmon/hwmon1/temp1_label": "Composite\n",
        "sys/class/hwmon/hwmon1/temp1_input": "38850\n",
        "sys/class/hwmon/hwmon2/name": "k10temp\n",
        "sys/class/hwmon/hwmon2/temp1_input": "-256000\n",  # switched off
    }
    assert read(tree(tmp_path, files))["temperatures"] == [
        {"name": "cpu-thermal", "celsius": 40.5},
        {"name": "x86_pkg_temp", "celsius": 51.0},
        {"name": "nvme Composite", "celsius": 38.85},
        {"name": "k10temp", "celsius": None},
    ]


def test_what_cannot_be_read_is_null_and_the_rest_is_there(tmp_path: Path) -> None:
    sample = Monitor(tmp_path / "gone", tmp_path, no_gpus()).read()
    assert sample["cpu"] == {"share": None, "per_core": [], "count": len(os.sched_getaffinity(0)), "load_1m": None}
    assert set(sample["memory"].values()) == {None}
    assert sample["disk"] == {"path": str(tmp_path / "gone"), "total_bytes": None, "free_bytes": None}
    assert (sample["temperatures"], sample["gpus"], sample["jetson"]) == ([], [], None)


def test_garbage_in_the_files_of_the_kernel_raises_nothing(tmp_path: Path) -> None:
    files = {
        "proc/stat": "cpu x y z\ncpu0 1 2\n\n",
        "proc/loadavg": "high\n",
        "proc/meminfo": "MemTotal:\nMemAvailable: many kB\n: 3 kB\nrubbish\n",
        "proc/self/cgroup": "rubbish\n7\n\n0::/unit\n",
        "sys/fs/cgroup/unit/memory.max": "lots\n",
        "sys/fs/cgroup/unit/cpu.max": "100000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu\n",
        "sys/class/thermal/thermal_zone0/temp": "warm\n",
    }
    sample = read(tree(tmp_path, files))
    assert sample["memory"]["limit_bytes"] is None
    assert sample["temperatures"] == [{"name": "cpu", "celsius": None}]
