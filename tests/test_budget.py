"""What a job may take: of a GPU's own memory, of memory that a GPU shares, and of the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_files import GIB, MEMINFO, ORIN, no_gpus, tree
from test_gpu import Driver

from mistudiod.budget import MIB, has_desktop, now, of_cpu, of_gpu, of_unified
from mistudiod.gpu import GpuReader, Nvml, unknown
from mistudiod.host import Memory, is_pressed, meminfo, memory
from mistudiod.monitor import Monitor

ROOM = "MemTotal: 33554432 kB\nMemAvailable: 25165824 kB\nSwapTotal: 33554432 kB\nSwapFree: 33554432 kB\n"


def of_kernel(tmp_path: Path, files: dict[str, str]) -> Memory:
    root = tree(tmp_path, {"proc/meminfo": ROOM, **files})
    return memory(root, meminfo(root))


def test_a_cpu_keeps_a_tenth_and_half_a_gibibyte_free_and_never_counts_swap(tmp_path: Path) -> None:
    found = of_cpu(of_kernel(tmp_path, {}))
    assert (found.device, found.total_bytes, found.free_bytes) == ("cpu", 32 * GIB, 24 * GIB)
    assert found.reserve_bytes == 512 * MIB + int(0.1 * 24 * GIB)
    assert found.usable_bytes == found.free_bytes - found.reserve_bytes
    assert found.host_free_bytes is None


def test_a_control_group_of_version_2_bounds_what_is_free_and_its_page_cache_counts_as_free(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/system.slice/mistudio.service\n",
        "sys/fs/cgroup/system.slice/mistudio.service/memory.max": f"{8 * GIB}\n",
        "sys/fs/cgroup/system.slice/mistudio.service/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/system.slice/mistudio.service/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        "sys/fs/cgroup/system.slice/memory.max": "max\n",
    }
    found = of_cpu(of_kernel(tmp_path, files))
    assert (found.total_bytes, found.free_bytes) == (8 * GIB, 6 * GIB)


def test_the_tightest_control_group_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": f"{16 * GIB}\n",
        "sys/fs/cgroup/a/b/memory.current": "0\n",
        "sys/fs/cgroup/a/memory.high": f"{4 * GIB}\n",
        "sys/fs/cgroup/a/memory.current": f"{GIB}\n",
    }
    found = of_cpu(of_kernel(tmp_path, files))
    assert (found.total_bytes, found.free_bytes) == (4 * GIB, 3 * GIB)


def test_a_control_group_of_version_1_bounds_what_is_free(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/\n",
        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/docker/x/memory.stat": f"total_inactive_file {GIB // 2}\n",
    }
    assert of_cpu(of_kernel(tmp_path, files)).free_bytes == 3 * GIB // 2


def test_version_1s_way_to_say_no_limit_is_none(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{20 * GIB}\n",
    }
    found = of_cpu(of_kernel(tmp_path, files))
    assert (found.total_bytes, found.free_bytes) == (32 * GIB, 24 * GIB)


def test_a_machine_that_says_nothing_has_an_unknown_budget(tmp_path: Path) -> None:
    found = of_cpu(memory(tmp_path, {}))
    assert (found.total_bytes, found.free_bytes, found.usable_bytes) == (None, None, None)
    assert found.reserve_bytes == 512 * MIB


def test_a_gpu_with_memory_of_its_own_has_what_nvml_calls_free_and_the_machines_memory_beside_it(
    tmp_path: Path,
) -> None:
    driver = Driver()
    monitor = Monitor(tmp_path, tree(tmp_path, {"proc/meminfo": MEMINFO}), GpuReader(Nvml(lambda: driver).read))
    found = now(monitor.read(), tmp_path)
    assert (found.device, found.name, found.total_bytes) == ("cuda", "NVIDIA H100", 80 * GIB)
    assert found.free_bytes == 70 * GIB
    assert found.reserve_bytes == 512 * MIB + 7 * GIB
    assert found.host_free_bytes == 8 * GIB


def test_a_gpu_whose_driver_gives_no_answer_has_an_unknown_budget(tmp_path: Path) -> None:
    found = of_gpu(unknown("NVIDIA H100", unified=False), of_kernel(tmp_path, {}))
    assert (found.device, found.free_bytes) == ("cuda", None)


def test_a_gpu_that_nvml_knows_no_memory_of_shares_the_machines(tmp_path: Path) -> None:
    driver = Driver("NVIDIA GB10")
    driver.refused = dict.fromkeys(
        ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"), driver.NVML_ERROR_NOT_SUPPORTED
    )
    monitor = Monitor(tmp_path, tree(tmp_path, {"proc/meminfo": MEMINFO}), GpuReader(Nvml(lambda: driver).read))
    found = now(monitor.read(), tmp_path)
    assert (found.device, found.total_bytes, found.free_bytes) == ("unified", 16 * GIB, 8 * GIB)
    assert found.reserve_bytes == 1536 * MIB + int(0.2 * 8 * GIB)
    assert found.host_free_bytes is None


def test_a_jetsons_budget_is_the_kernels_number_whatever_nvml_says(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tree(tmp_path, ORIN), no_gpus())
    found = now(monitor.read(), tmp_path)
    monitor.close()
    assert (found.device, found.free_bytes) == ("unified", 4_000_000 * 1024)
    gpu = unknown("Orin", unified=True) | {"memory_total_bytes": GIB, "memory_free_bytes": GIB}
    assert of_unified(gpu, of_kernel(tmp_path, {})).free_bytes == 24 * GIB  # type: ignore[arg-type]


def test_where_windows_are_open_more_of_the_shared_memory_stays_free(tmp_path: Path) -> None:
    assert not has_desktop(tree(tmp_path, {"proc/1/comm": "systemd\n", "proc/7/comm": "sshd\n"}))
    assert has_desktop(tree(tmp_path, {"proc/812/comm": "gnome-shell\n"}))
    gpu, room = unknown("Orin", unified=True), of_kernel(tmp_path, {})
    with_desktop, without = of_unified(gpu, room, desktop=True), of_unified(gpu, room)
    assert with_desktop.reserve_bytes - without.reserve_bytes == GIB


def test_a_machine_without_a_gpu_has_a_cpus_budget(tmp_path: Path) -> None:
    sample = Monitor(tmp_path, tree(tmp_path, {"proc/meminfo": MEMINFO}), no_gpus()).read()
    assert now(sample, tmp_path).device == "cpu"


@pytest.mark.parametrize(
    ("pressure", "pressed"),
    [
        ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", False),
        ("some avg10=23.40 avg60=1.00 avg300=0.10 total=99\nfull avg10=1.0 avg60=0 avg300=0 total=1\n", True),
        ("some avg10=3.00 avg60=50.0 avg300=0.10 total=99\nfull avg10=90.0 avg60=0 avg300=0 total=1\n", False),
        ("", False),
    ],
)
def test_a_machine_is_short_of_memory_when_much_of_the_last_ten_seconds_was_spent_waiting(
    tmp_path: Path, pressure: str, pressed: bool
) -> None:
    assert is_pressed(tree(tmp_path, {"proc/pressure/memory": pressure})) is pressed
    assert not is_pressed(tmp_path / "an old kernel")
