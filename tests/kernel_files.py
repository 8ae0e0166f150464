"""Small copies of the files that kernels show, and a monitor that reads them."""

from __future__ import annotations

from pathlib import Path

from mistudiod.gpu import GpuReader
from mistudiod.monitor import Monitor, Sample

GIB = 1 << 30
MEMINFO = (
    "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\nSwapTotal: 2097152 kB\nSwapFree: 1048576 kB\n"
)
ORIN_LOAD = "sys/devices/platform/bus@0/17000000.gpu/load"
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "proc/meminfo": "MemTotal: 7800000 kB\nMemAvailable: 4000000 kB\nNvMapMemUsed: 500000 kB\n",
    ORIN_LOAD: "437\n",
    "sys/devices/platform/13e40000.host1x/15340000.vic/load": "999\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "47000\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "45250\n",
    "sys/class/thermal/thermal_zone2/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone2/temp": "100000\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def no_gpus() -> GpuReader:
    return GpuReader(list)


def read(root: Path) -> Sample:
    return Monitor(root, root, no_gpus()).read()
