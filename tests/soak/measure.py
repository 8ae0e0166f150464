"""One look at the daemon, from outside: the kernel's figures of its process, and its own of its loop."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import httpx
from served_studio import Served


@dataclass(frozen=True)
class Sample:
    """``anonymous_bytes`` is memory that no file stands behind; ``late_s``: by how much its event loop was late, as
    a sum and a count since its start.
    """

    at_s: float
    rss_bytes: int
    anonymous_bytes: int
    fds: int
    threads: int
    database_bytes: int
    wal_bytes: int
    late_s: float
    looks: int
    streams: int


def measure(studio: Served, http: httpx.Client, at_s: float, streams: int) -> Sample:
    process = Path(f"/proc/{studio.pid}")
    sizes = _sizes((process / "smaps_rollup").read_text())
    said = http.get(f"{studio.url}/metrics").text
    late, looks = (re.search(rf"^mistudio_event_loop_lag_seconds_{one} (\S+)$", said, re.M) for one in ("sum", "count"))
    assert late and looks
    wal = studio.data / "mistudio.db-wal"
    return Sample(
        at_s=round(at_s, 2),
        rss_bytes=sizes["Rss"],
        anonymous_bytes=sizes["Anonymous"],
        fds=len(os.listdir(process / "fd")),
        threads=len(os.listdir(process / "task")),
        database_bytes=(studio.data / "mistudio.db").stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        late_s=float(late[1]),
        looks=int(looks[1]),
        streams=streams,
    )


def _sizes(rollup: str) -> dict[str, int]:
    """Bytes by name of /proc/PID/smaps_rollup."""
    rows = (line.split() for line in rollup.splitlines()[1:])
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}
