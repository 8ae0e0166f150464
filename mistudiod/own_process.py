"""What the kernel says of the daemon's own process. Source: proc(5)."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass(frozen=True)
class OwnProcess:
    resident_bytes: int
    open_files: int
    files_limit: int
    threads: int
    cpu_seconds: float


def own_process() -> OwnProcess:
    """Some file reads; cheap enough for the event loop."""
    _, _, rest = (_SELF / "stat").read_text().rpartition(")")  # the name before may hold anything
    fields = rest.split()  # from field 3 on
    return OwnProcess(
        resident_bytes=int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        open_files=len(os.listdir(_SELF / "fd")) - 1,  # one is the listing's own
        files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        threads=int(fields[17]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    )
