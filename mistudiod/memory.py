"""Memory that a job has, measured: that of its worker's process group, and what the group has of the GPUs'."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mistudiod.gpu import Nvml, Patience
from mistudiod.host import text

Ask = Callable[[], "dict[int, int] | None"]


class Meter:
    """``root`` is where /proc lies; ``ask`` gives the GPU memory of every process, through NVML when not given."""

    def __init__(self, root: Path = Path("/"), ask: Ask | None = None) -> None:
        self._proc = root / "proc"
        self._gpus: Patience[dict[int, int]] = Patience(ask or Nvml().processes)

    def measured(self, pid: int) -> tuple[int | None, int | None]:
        """Bytes of memory and of GPU memory that the group of the worker ``pid`` has now; None is unknown.

        It blocks (2 s at most for the GPUs): call it in a thread.
        """
        group = self._group(pid)
        sizes = [size for one in group if (size := self._bytes(one)) is not None]
        return sum(sizes) if sizes else None, self._gpu_bytes(group)

    def _group(self, leader: int) -> list[int]:
        """The processes of a group: a worker's is named after it."""
        found = []
        for entry in self._proc.iterdir():
            if entry.name.isdecimal():
                fields = (text(entry / "stat") or "").rpartition(")")[2].split()
                if len(fields) > 2 and fields[2] == str(leader):
                    found.append(int(entry.name))
        return found

    def _bytes(self, pid: int) -> int | None:
        """Its own pages and its share of those it has in common with others; all of them where the kernel is old."""
        for line in (text(self._proc / str(pid) / "smaps_rollup") or "").splitlines():
            name, _, rest = line.partition(":")
            if name == "Pss":
                return int(rest.split()[0]) * 1024
        fields = (text(self._proc / str(pid) / "statm") or "").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None

    def _gpu_bytes(self, group: list[int]) -> int | None:
        if not group or (used := self._gpus.ask()) is None:
            return None
        sizes = [used[pid] for pid in group if pid in used]
        # In a container NVML may speak of other process ids than ours: then there is an open GPU, and no number.
        return None if not sizes and any(self._has_gpu(pid) for pid in group) else sum(sizes)

    def _has_gpu(self, pid: int) -> bool:
        try:
            opened = [os.readlink(link) for link in (self._proc / str(pid) / "fd").iterdir()]
        except OSError:
            return False
        return any(path.startswith("/dev/nvidia") for path in opened)


measured = Meter().measured
