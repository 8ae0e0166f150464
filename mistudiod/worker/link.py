"""A worker's only ties to the daemon: events up a pipe, commands down stdin.

stdin is also the lifeline: its end means that the daemon is gone, and the worker leaves at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mistudiod.events import Artifact, Event, Failure, Live, Metric, Noun, Progress, Result, to_line
from mistudiod.paths import Paths
from mistudiod.redact import PROCESS

Wish = Literal["stop", "pause", "finalize"]
EVENTS_FD = "MISTUDIO_EVENTS_FD"  # number of the pipe that the daemon reads
SECRETS_FD = "MISTUDIO_SECRETS_FD"  # number of the pipe with this job's secrets; unset when it needs none
DAEMON_PID = "MISTUDIO_DAEMON_PID"
PROGRESS_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJ = 800  # when memory runs out, the kernel takes the worker, not the user's desktop

EXIT_INVALID, EXIT_MISSING, EXIT_INTERNAL, EXIT_DISK = 64, 69, 70, 73
EXIT_YIELDED, EXIT_STOPPED, EXIT_MEMORY = 75, 76, 77


class Refused(Exception):
    """The job cannot be done as asked: one sentence, and the field of the spec that is at fault."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Held(Exception):
    """The job can go no further until a person has done something: why, as a code and one sentence. It keeps its work,
    and is paused.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Asked(BaseException):
    """The daemon asked this worker to ``stop``, ``pause`` or ``finalize``.

    Not an Exception: nothing on the way may swallow it.
    """

    def __init__(self, what: Wish) -> None:
        super().__init__(what)
        self.what = what


class Link:
    """What a job says and hears. ``run`` is its folder, ``paths`` knows where artifacts lie.

    ``choices``: what its plan has chosen for what its spec leaves open; empty when there is no plan. ``finalize``: it
    is to finish from what it has, without going on.
    """

    def __init__(
        self,
        run: Path,
        paths: Paths,
        events_fd: int | None = None,
        secrets: Mapping[str, str] | None = None,
        choices: Mapping[str, Any] | None = None,
        finalize: bool = False,
    ) -> None:
        self.run, self.paths, self.choices, self.finalize = run, paths, choices or {}, finalize
        self._secrets = secrets or {}
        self.asked: Wish | None = None
        self._pipe = os.fdopen(events_fd, "wb", buffering=0) if events_fd is not None else None
        self._stage, self._stage_began, self._stage_from, self._last_progress = "", 0.0, 0.0, 0.0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise Asked when the daemon has asked for an end. Call it between steps."""
        if self.asked:
            raise Asked(self.asked)

    def secret(self, name: str) -> str | None:
        """What the daemon has handed to this job under ``name``, as ``hf``; None when nobody has set it."""
        return self._secrets.get(name)

    def progress(self, stage: str, done: float, total: float | None = None, unit: str = "") -> None:
        """Say how far ``stage`` has come. Cheap to call often: few are sent; the ETA is worked out here."""
        at = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_began, self._stage_from = stage, at, done
        elif at - self._last_progress < PROGRESS_EVERY_S and done != total:
            return
        self._last_progress = at
        eta_s = None
        if total is not None and done > self._stage_from:
            eta_s = max(total - done, 0) * (at - self._stage_began) / (done - self._stage_from)
        self._send(Progress(stage=stage, done=done, total=total, unit=unit, eta_s=eta_s))

    def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
        self._send(Metric(step=step, values=values, sae=sae))

    def live(self, sae: str, step: int, features: list[dict[str, Any]]) -> None:
        """Tell of a few features: ``{"feature", "density", "windows": [{"value", "before", "token", "after"}]}``."""
        self._send(Live(sae=sae, step=step, features=features))

    def artifact(self, noun: Noun, name: str) -> None:
        """Say that a folder is finished and lies under its final name."""
        self._send(Artifact(noun=noun, name=name))

    def result(self, result: dict[str, object]) -> None:
        self._send(Result(result=result))

    def failure(self, code: str, message: str, field: str | None = None) -> None:
        self._send(Failure(code=code, message=message[:4000], field=field))

    def _send(self, event: Event) -> None:
        line = PROCESS.hide_known(to_line(event).decode()).encode()
        with self._lock:
            if self._pipe is None:
                sys.stderr.write(line.decode())
            else:
                self._pipe.write(line)

    def listen(self) -> None:
        """Follow stdin in a thread; its end ends this process."""
        threading.Thread(target=self._follow_stdin, name="stdin", daemon=True).start()

    def _follow_stdin(self) -> None:
        for line in sys.stdin:
            command = line.strip()
            if command == "stop" or command == "pause" or command == "finalize":
                self.asked = command
        os._exit(EXIT_YIELDED)


def take_secrets() -> dict[str, str]:
    """Read what the daemon hands over, once; from then on this process hides it in all it says."""
    number = os.environ.pop(SECRETS_FD, None)
    if number is None:
        return {}
    with os.fdopen(int(number), "rb") as pipe:
        secrets: dict[str, str] = json.loads(pipe.read())
    PROCESS.know(secrets.values())
    return secrets


def tie_to_parent() -> None:
    """Die with the daemon, be the first to go when memory runs out, and end at SIGTERM as at a stop."""
    daemon = int(os.environ.get(DAEMON_PID) or os.getppid())  # 1 in a container
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != daemon:  # it died before prctl took hold
        os._exit(EXIT_YIELDED)
    with contextlib.suppress(OSError):  # some containers forbid it
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(_signal: int, _frame: object) -> None:
    raise Asked("stop")
