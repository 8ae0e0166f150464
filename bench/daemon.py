"""How quickly the daemon is ready and how much memory it takes: ``python bench/daemon.py [--rounds 5]``.

Ready is the time from starting the process to the first answer of /api/status. Beside it, in turn, the bare import of
the libraries that it stands on (aiohttp.web, pydantic, sqlite-utils), each in a process of its own. sqlite-utils is
imported as the daemon imports it, without numpy and pandas: with them the bare import is slower.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARIES = (
    "import sys; sys.modules.update(numpy=None, pandas=None); import aiohttp.web, pydantic, sqlite_utils, asyncio"
)


def bare_import() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    return time.perf_counter() - began


def ready(data: Path) -> tuple[float, int, int]:
    """Seconds until it answers; resident bytes after 3 s at rest, all and private."""
    port = free_port()
    command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/status")
            if connection.getresponse().status == 200:
                break
        time.sleep(0.002)
    took = time.perf_counter() - began
    connection.close()
    time.sleep(3)
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    process.terminate()
    process.wait()
    return took, kilobytes(rollup, "Rss:") * 1024, kilobytes(rollup, "Private_Dirty:") * 1024


def kilobytes(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bare_import(), ready(Path(folder))  # warm the caches
        imports, starts, rss, private = [], [], [], []
        for _ in range(rounds):
            imports.append(bare_import())
            took, resident, dirty = ready(Path(folder))
            starts.append(took), rss.append(resident), private.append(dirty)
    print(f"bare import of the libraries: best {min(imports):.3f} s, median {statistics.median(imports):.3f} s")
    print(f"daemon ready:                 best {min(starts):.3f} s, median {statistics.median(starts):.3f} s")
    print(f"ratio: best/best {min(starts) / min(imports):.2f}, "
          f"median/median {statistics.median(starts) / statistics.median(imports):.2f}")  # fmt: skip
    print(f"idle memory: resident {max(rss) / 1e6:.1f} MB, of it private {max(private) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
