"""The daemon of a drill: a process that is started, asked, frozen and killed, and its workers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.drills import TESTS

WORKER = (sys.executable, str(TESTS / "drills" / "worker.py"))
# The daemon as it is installed, with another program in the place of its worker.
SERVE = f"""
from mistudiod import runner
runner.WORKER = {WORKER!r}
import mistudiod.app
mistudiod.app.make_app.__defaults__ = (runner.WORKER,)
from mistudiod.__main__ import run
run()
"""
READY_S = 120.0  # on a machine that has much else to do
# So that a folder that may not be written to is one for root as well.
AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")


class NotReady(Exception):
    """The daemon has ended instead of starting: its exit code, and what it has said."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"exit code {code}: {said}")
        self.code, self.said = code, said


class Daemon:
    def __init__(self, data: Path, log: Path, environ: Mapping[str, str], *prefix: str) -> None:
        self.data, self.log, self.url = data, log, ""
        self._from = log.stat().st_size if log.exists() else 0
        known = {k: v for k, v in os.environ.items() if not k.startswith(("MISTUDIO_", "HF_"))}
        known |= {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS.parent / "client")))}
        command = [*(AS_ANYBODY if os.geteuid() == 0 else ()), *prefix, sys.executable, "-c", SERVE]
        command += ["serve", "--data", str(data), "--port", "0", "--stop-grace-s", "5", "--term-grace-s", "5"]
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                command, env={**known, **environ}, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def ready(self) -> Daemon:
        """Wait until it can be asked; raises NotReady."""
        end = time.monotonic() + READY_S
        while not (match := re.search(r" is at (http://\S+),", self.said())):
            if (code := self.process.poll()) is not None:
                raise NotReady(code, self.said())
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)
        self.url = match[1]
        return self

    def call(self, path: str, body: object = None, method: str | None = None, timeout_s: float = 30.0) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return json.load(answer) if answer.headers.get_content_type() == "application/json" else None

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, limit_s: float = 90.0) -> int:
        self.send(number)
        return self.process.wait(limit_s)

    def workers(self) -> dict[str, int]:
        """Process by what it works at: the number of a job, or ``session``."""
        return workers_of(self.data)


def workers_of(data: Path) -> dict[str, int]:
    """Every worker of a data folder that lives; one that works at what another works at is an error."""
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            leads = os.getpgid(int(process.name)) == int(
                process.name
            )  # what a worker starts has its command line at first
        except OSError:
            continue
        run = Path(words[2]) if len(words) > 2 and words[1] == WORKER[1] else None
        if run is None or not leads or data not in run.parents or not lives(int(process.name)):
            continue
        other = found.get(run.name)  # which may have ended since it was looked at, and have been followed by this one
        assert other is None or not lives(other), f"two workers at {run}: {other} and {process.name}"
        found[run.name] = int(process.name)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(what: Callable[[], Any], limit_s: float, every_s: float = 0.05) -> Any:
    """What it says, as soon as that is true; None when it never is."""
    end = time.monotonic() + limit_s
    while not (found := what()):
        if time.monotonic() > end:
            return None
        time.sleep(every_s)
    return found
