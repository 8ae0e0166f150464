"""What memory a job may take: one function each for a GPU of its own, unified memory, and a CPU.

What is free is read elsewhere (monitor, gpu, host); here is what of it must stay free. The shares and reserves follow
what other local studios came to: a discrete GPU frees late and fragments, and on unified memory the first failure may
be the end of somebody else's process.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mistudiod.gpu import Gpu
from mistudiod.host import Memory, text
from mistudiod.monitor import Sample

Device = Literal["cuda", "unified", "cpu"]
MIB = 1 << 20
_KEPT_SHARE: dict[Device, float] = {"cuda": 0.10, "unified": 0.20, "cpu": 0.10}  # of what is free
_KEPT_BYTES: dict[Device, int] = {"cuda": 512 * MIB, "unified": 1536 * MIB, "cpu": 512 * MIB}
_KEPT_WITH_DESKTOP = 2560 * MIB  # of unified memory: windows and their GPU memory grow while a job runs
_DESKTOPS = ("Xorg", "gnome-shell", "kwin_wayland", "kwin_x11", "sway", "weston", "Xwayland", "lxqt-session")


@dataclass(frozen=True)
class Budget:
    """Bytes on the device that a job's tensors live on; ``reserve_bytes`` of the free ones must stay free.

    ``host_free_bytes``: memory of the machine that is free beside a GPU's own; None where both are one.
    """

    device: Device
    name: str
    total_bytes: int | None
    free_bytes: int | None
    reserve_bytes: int
    host_free_bytes: int | None = None

    @property
    def usable_bytes(self) -> int | None:
        return None if self.free_bytes is None else max(0, self.free_bytes - self.reserve_bytes)

    def about(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def of_gpu(gpu: Gpu, memory: Memory) -> Budget:
    """A GPU with memory of its own: what NVML calls free. Unknown stays unknown."""
    free = gpu["memory_free_bytes"]
    return Budget("cuda", gpu["name"], gpu["memory_total_bytes"], free, _kept("cuda", free), memory["available_bytes"])


def of_unified(gpu: Gpu, memory: Memory, desktop: bool = False) -> Budget:
    """A GPU that shares the machine's memory: the kernel's number, for CUDA's leaves out what would be given back.

    NVML's is not looked at, even where it says one: it is wrong on some of these machines.
    """
    free = memory["available_bytes"]
    reserve = _kept("unified", free) + (_KEPT_WITH_DESKTOP - _KEPT_BYTES["unified"] if desktop else 0)
    return Budget("unified", gpu["name"], memory["total_bytes"], free, reserve)


def of_cpu(memory: Memory) -> Budget:
    """The machine's memory, within the limit of the control group; swap never counts."""
    known = [size for size in (memory["total_bytes"], memory["limit_bytes"]) if size is not None]
    free = memory["available_bytes"]
    return Budget("cpu", "CPU", min(known, default=None), free, _kept("cpu", free))


def now(sample: Sample, root: Path = Path("/")) -> Budget:
    """The budget of the device that a worker would use: the first GPU if there is one, else the CPU."""
    if not sample["gpus"]:
        return of_cpu(sample["memory"])
    gpu = sample["gpus"][0]
    return of_unified(gpu, sample["memory"], has_desktop(root)) if gpu["unified"] else of_gpu(gpu, sample["memory"])


def has_desktop(root: Path = Path("/")) -> bool:
    """Whether somebody's windows live on this machine."""
    names = (text(path) for path in (root / "proc").glob("[0-9]*/comm"))
    return any(name in _DESKTOPS for name in names if name)


def _kept(device: Device, free: int | None) -> int:
    return _KEPT_BYTES[device] + int(_KEPT_SHARE[device] * (free or 0))
