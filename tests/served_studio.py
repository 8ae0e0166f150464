"""A studio as people start it, whose Hub is the tests' own: for what goes from a repository to a repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub import Hub

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Served:
    url: str
    data: Path
    environ: dict[str, str]  # for whoever talks to it
    pid: int


@contextmanager
def served(home: Path, hub: Hub, **more: str) -> Iterator[Served]:
    """``more``: of its environment, in which nothing of the person who runs the tests is left."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MISTUDIO_"))}
    python = os.pathsep.join([str(ROOT), str(ROOT / "client")])
    environ = known | hub.environ(home / "huggingface") | {"PYTHONPATH": python, "COLUMNS": "200"} | more
    data, log = home / "data", home / "daemon.txt"
    command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", "0"]
    with log.open("w") as written:
        process = subprocess.Popen(command, env=environ, stderr=written)
    for _ in range(600):
        if match := re.search(r" is at (http://\S+),", log.read_text()):
            break
        time.sleep(0.05)
    else:
        raise AssertionError(log.read_text())
    url = match[1]
    try:
        yield Served(url, data, environ | {"MISTUDIO_HOST": url}, process.pid)
    finally:
        process.terminate()
        process.wait(30)
