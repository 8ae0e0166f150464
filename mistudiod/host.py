"""What the kernel says about this machine: CPU, memory, control groups, temperatures.

Files in, numbers out. ``root`` is ``/`` on a real machine. What cannot be read or understood is None.
Sources: proc(5), cgroups(7), Documentation/admin-guide/cgroup-v2.rst and Documentation/hwmon/sysfs-interface.rst.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import TypedDict

_STALLED_SHARE = 0.10  # of ten seconds in which somebody waited for memory: from here on the machine thrashes
_NO_LIMIT = 1 << 60  # cgroup v1 says "no limit" with 2**63 rounded down to a page
_LOOK_AGAIN_S = 60.0  # between two looks for sensors
_SENSOR_C = (-55.0, 150.0)  # what a sensor can measure; a switched-off one says -256 or the like


class Cpu(TypedDict):
    share: float | None  # 0 to 1, all cores, since the last reading
    per_core: list[float | None]  # index is the core's number; None: offline, or the first reading
    count: int  # cores that this process may use
    load_1m: float | None


class Memory(TypedDict):
    total_bytes: int | None
    available_bytes: int | None  # the least of the machine's and the control group's
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    limit_bytes: int | None  # of the control group


class Temperature(TypedDict):
    name: str
    celsius: float | None


def text(path: Path) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:  # a hundred of these a second: no layers in between
            return file.read().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return None


def number(path: Path) -> int | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


class CpuReader:
    """Shares of CPU time between one reading and the next."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._before: dict[str, tuple[int, int]] = {}

    def read(self) -> Cpu:
        ticks = _cpu_ticks(text(self._root / "proc/stat") or "")
        shares = {name: _busy_share(self._before.get(name), now) for name, now in ticks.items()}
        self._before = ticks
        cores = [int(name[3:]) for name in ticks if name != "cpu"]
        load = (text(self._root / "proc/loadavg") or "").split()
        return {
            "share": shares.get("cpu"),
            "per_core": [shares.get(f"cpu{i}") for i in range(max(cores, default=-1) + 1)],
            "count": cpu_count(self._root),
            "load_1m": _float(load[0]) if load else None,
        }


def _cpu_ticks(stat: str) -> dict[str, tuple[int, int]]:
    """Idle and total ticks of ``cpu`` (all) and ``cpu0``, ``cpu1``, … . Guest time is part of user time already."""
    ticks = {}
    for line in stat.splitlines():
        name, *fields = line.split() or [""]
        if not name.startswith("cpu"):
            break  # what follows, interrupts above all, is long
        try:
            user, nice, system, idle, *more = (int(field) for field in fields[:8])
        except ValueError:
            continue
        ticks[name] = (idle + sum(more[:1]), user + nice + system + idle + sum(more))
    return ticks


def _busy_share(before: tuple[int, int] | None, now: tuple[int, int]) -> float | None:
    if before is None or now[1] <= before[1]:
        return None
    idle = (now[0] - before[0]) / (now[1] - before[1])
    return min(max(1.0 - idle, 0.0), 1.0)  # the kernel's iowait may run backwards


def cpu_count(root: Path) -> int:
    """Cores that this process may use: its affinity and its control group's quota, rounded up."""
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _cgroup(root, "cpu") if (quota := _cpu_quota(folder)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _cpu_quota(folder: Path) -> float | None:
    """Cores' worth of time: v2 says ``150000 100000`` or ``max 100000``; v1 has two files, and -1 for none."""
    quota, period = number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")
    if quota is None:
        pair = [_float(field) for field in (text(folder / "cpu.max") or "").split()]
        return pair[0] / pair[1] if len(pair) == 2 and pair[0] and pair[1] else None
    return quota / period if quota > 0 and period else None


def _float(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    sizes = {}
    for line in (text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        field = rest.split()
        if len(field) == 2 and field[0].isdecimal() and field[1] == "kB":
            sizes[name] = int(field[0]) * 1024
    return sizes


def memory(root: Path, info: dict[str, int]) -> Memory:
    """``info`` is what meminfo() gave. Swap never counts as available: a job that needs it crawls."""
    rooms = [_memory_room(folder) for folder in _cgroup(root, "memory")]
    limits = [limit for limit, _ in rooms if limit is not None]
    available = info.get("MemAvailable")
    if available is not None:
        available = min([available, *(room for _, room in rooms if room is not None)])
    return {
        "total_bytes": info.get("MemTotal"),
        "available_bytes": available,
        "swap_total_bytes": info.get("SwapTotal"),
        "swap_free_bytes": info.get("SwapFree"),
        "limit_bytes": min(limits, default=None),
    }


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for want of memory since it was started; 0 where it does not count."""
    return _field(root / "proc/vmstat", "oom_kill")


def is_pressed(root: Path = Path("/")) -> bool:
    """Whether processes wait for memory now (PSI, ``some avg10``). False where the kernel keeps no such count."""
    for line in (text(root / "proc/pressure/memory") or "").splitlines():
        kind, *fields = line.split()
        if kind == "some":
            shares = [field.removeprefix("avg10=") for field in fields if field.startswith("avg10=")]
            return bool(shares) and float(shares[0]) / 100 > _STALLED_SHARE
    return False


def _memory_room(folder: Path) -> tuple[int | None, int | None]:
    """Limit of one control group, and what may still be taken: its page cache can be given back."""
    v1 = number(folder / "memory.limit_in_bytes")
    stated = [v1] if v1 is not None else [number(folder / "memory.max"), number(folder / "memory.high")]
    limits = [limit for limit in stated if limit is not None and limit < _NO_LIMIT]
    if not limits:
        return None, None
    used = number(folder / ("memory.current" if v1 is None else "memory.usage_in_bytes"))
    if used is None:
        return min(limits), None
    cache = _field(folder / "memory.stat", "inactive_file" if v1 is None else "total_inactive_file")
    return min(limits), max(0, min(limits) - max(0, used - cache))


def _field(path: Path, name: str) -> int:
    for line in (text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _cgroup(root: Path, controller: str) -> Iterator[Path]:
    """This process's control group for a controller and all that hold it, up to the mount.

    In a container the path may be the host's and exist here in no part: then only the mount itself is read.
    """
    mounts = root / "sys/fs/cgroup"
    mount, path = mounts, None
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, _, entry = line.partition(":")  # 4:memory:/path, 3:cpu,cpuacct:/path, or 0::/path for v2
        controllers, _, own = entry.partition(":")
        if controller in controllers.split(","):
            mount, path = mounts / controller, own  # v1: a controller is there or in v2, never in both
            break
        if own and not controllers:
            path = own
    if path is None:
        return
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # outside this namespace
        parts = []
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


class TemperatureReader:
    """Thermal zones, then the sensors of hwmon that are not a thermal zone again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sensors: list[tuple[str, Path]] = []
        self._look_at = 0.0

    def read(self) -> list[Temperature]:
        if time.monotonic() >= self._look_at:  # drivers are loaded and disks plugged in while we run
            self._sensors = [*_zones(self._root), *_hwmon(self._root)]
            self._look_at = time.monotonic() + _LOOK_AGAIN_S
        return [{"name": name, "celsius": _celsius(path)} for name, path in self._sensors]


def _zones(root: Path) -> Iterator[tuple[str, Path]]:
    for zone in _numbered(root / "sys/class/thermal", "thermal_zone"):
        name = text(zone / "type")
        if name and "PMIC" not in name:  # Jetson's PMIC zone is a constant, not a sensor
            yield name, zone / "temp"


def _hwmon(root: Path) -> Iterator[tuple[str, Path]]:
    zones = {name.replace("-", "_") for name, _ in _zones(root)}
    for chip in _numbered(root / "sys/class/hwmon", "hwmon"):
        name = text(chip / "name")
        if not name or name.replace("-", "_") in zones:
            continue
        for sensor in sorted(chip.glob("temp*_input")):
            label = text(sensor.with_name(sensor.name.replace("_input", "_label")))
            yield (f"{name} {label}" if label else name), sensor


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """``thermal_zone2`` comes before ``thermal_zone10``."""
    entries = [path for path in folder.glob(prefix + "*") if path.name[len(prefix) :].isdecimal()]
    return sorted(entries, key=lambda path: int(path.name[len(prefix) :]))


def _celsius(path: Path) -> float | None:
    thousandths = number(path)
    if thousandths is None or not _SENSOR_C[0] <= thousandths / 1000 <= _SENSOR_C[1]:
        return None
    return thousandths / 1000
