"""One worker process: start it, hear it, end it. Knows nothing of the database.

The worker is its own process group, so that whatever it starts ends with it. What it says comes over a pipe of its own
(libraries print to stdout); its stdout and stderr go to ``log.txt``. It ends with this process: its stdin is closed
then, and the kernel is asked to kill it (``PR_SET_PDEATHSIG``, set by the worker).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mistudiod.events import Lines, WorkerEvent, from_line
from mistudiod.redact import LONGEST_CHARS, PROCESS

WORKER = (sys.executable, "-m", "mistudiod.worker")
EVENTS_FD = "MISTUDIO_EVENTS_FD"
DAEMON_PID = "MISTUDIO_DAEMON_PID"  # the parent that a worker must have
SECRETS_FD = "MISTUDIO_SECRETS_FD"  # where a worker that needs secrets reads them, once
TAIL_BYTES = 65_536
# Not for workers: what they need they are handed, and what they start would inherit the rest.
_WITHHELD = frozenset(
    {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "MISTUDIO_TOKEN", "CREDENTIALS_DIRECTORY"}
)
_LOOK_AGAIN_S = 5.0  # at a worker that may be silent
_ORPHAN_S = 5.0  # until a killed process has given back what it had; a wedged driver may hold it for ever
_DRAIN_S = 2.0  # that nothing comes of a dead worker, whose pipe a grandchild may hold open


@dataclass(frozen=True)
class Grace:
    """Patience: after a message, after SIGTERM, and with a worker that says nothing.

    ``saving_s``: after a stop with a worker that goes on saying how far it is, for it saves what it has.
    """

    stop_s: float
    term_s: float
    progress_s: float
    saving_s: float = 0.0


@dataclass(frozen=True)
class Exit:
    """How a worker ended. ``code`` is negative for a signal; ``hung`` when it was ended for its silence."""

    code: int
    asked: Literal["stop", "pause"] | None
    hung: bool
    tail: str


class Worker:
    """A started worker. Iterate ``events()`` to its end, then ``await ended()``."""

    def __init__(self, process: asyncio.subprocess.Process, events_fd: int, run: Path, grace: Grace) -> None:
        self.process, self.run, self.grace = process, run, grace
        self.starttime = starttime(process.pid)
        self.asked: Literal["stop", "pause"] | None = None
        self.hung = False
        self.resting = False  # nothing is asked of it: it may be silent
        self._events = os.fdopen(events_fd, "rb", buffering=0)
        self._descending = False
        self._waits = asyncio.Event()  # all that was read has been taken in
        self._tasks: list[asyncio.Task[None]] = []
        self._heard = time.monotonic()

    @classmethod
    async def start(
        cls, run: Path, grace: Grace, command: Sequence[str] = WORKER, secrets: Mapping[str, str] | None = None
    ) -> Worker:
        """``run`` holds ``spec.json``; ``secrets`` go to the worker alone, up a pipe of their own.

        Raises OSError when the process cannot be started.
        """
        read, write = os.pipe()
        try:
            async with _handed(secrets or {}) as secrets_fd:
                lines = {EVENTS_FD: write} | ({SECRETS_FD: secrets_fd} if secrets_fd is not None else {})
                with open(run / "log.txt", "ab") as log:  # noqa: ASYNC230 - opening a local file is quick
                    process = await asyncio.create_subprocess_exec(
                        *command,
                        str(run),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        pass_fds=tuple(lines.values()),
                        start_new_session=True,
                        env=_environment() | {name: str(number) for name, number in lines.items()},
                    )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        return cls(process, read, run, grace)

    async def events(self) -> AsyncGenerator[WorkerEvent, None]:
        """What the worker says, until it has ended. Lines that are no events are dropped."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._events)
        self._tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._reap(transport))]
        lines = Lines()
        try:
            while data := await self._read(reader):
                self._heard = time.monotonic()
                for line in lines.feed(data):
                    if (event := from_line(_without_secrets(line))) is not None:
                        yield event
        finally:
            transport.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        self._waits.set()
        data = await reader.read(TAIL_BYTES)
        self._waits.clear()
        return data

    def ask(self, what: Literal["stop", "pause"]) -> None:
        """Begin the ladder: a message, then SIGTERM, then SIGKILL to the group. A later stop beats a pause."""
        if self.asked != "stop":
            self.asked = what
            self._say(what)
        if not self._descending:
            self._descending = True
            self._tasks.append(asyncio.create_task(self._descend()))

    def finalize(self) -> None:
        """Tell a training to come to its end now; it takes as long as it takes."""
        if self.asked is None:
            self._say("finalize")

    def say(self, line: str) -> None:
        """Ask something of a resident worker; from now on it may not be silent."""
        self.resting, self._heard = False, time.monotonic()
        self._say(line)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ended(self) -> Exit:
        code = await self.process.wait()
        self.kill()  # what it may have left in its group
        for task in self._tasks:
            task.cancel()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._events.close()  # when nobody has iterated events(): otherwise its transport has closed it
        tail = await asyncio.to_thread(read_tail, self.run / "log.txt")
        return Exit(code, self.asked, self.hung, tail)

    def _say(self, command: str) -> None:
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(f"{command}\n".encode())

    async def _descend(self) -> None:
        limit = time.monotonic() + self.grace.saving_s
        await asyncio.sleep(self.grace.stop_s)
        while self.asked == "stop" and (left := min(self._heard + self.grace.stop_s, limit) - time.monotonic()) > 0:
            await asyncio.sleep(left)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        await asyncio.sleep(self.grace.term_s)
        self.kill()

    async def _watch(self) -> None:
        """End a worker that has been silent for too long; its stacks go to the log first."""
        while (left := self._heard + self.grace.progress_s - time.monotonic()) > 0 or self.resting:
            await asyncio.sleep(left if left > 0 else min(self.grace.progress_s, _LOOK_AGAIN_S))
        self.hung = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(min(1.0, self.grace.term_s))
        self.kill()

    async def _reap(self, transport: asyncio.ReadTransport) -> None:
        """Let the reading end soon after the process, even if something it started still holds the pipe.

        Only the time counts in which more is waited for: whoever is slow, for the database is, has not read it all.
        """
        await self.process.wait()
        self.kill()
        for _ in range(20):
            await self._waits.wait()
            await asyncio.sleep(_DRAIN_S / 20)
        transport.close()


@contextlib.asynccontextmanager
async def _handed(secrets: Mapping[str, str]) -> AsyncGenerator[int | None, None]:
    """The end of a pipe from which a worker reads ``secrets``; None when there are none.

    The event loop writes, for a pipe may hold as little as a page and the worker may be slow to read.
    """
    if not secrets:
        yield None
        return
    PROCESS.know(secrets.values())
    read, write = os.pipe()
    try:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", buffering=0))
        transport.write(json.dumps(dict(secrets)).encode())
        transport.close()  # once all is written, or nobody is left to read it
        yield read
    finally:
        os.close(read)


def _without_secrets(line: bytes) -> bytes:
    """A worker hides its secrets itself; this is for the one that does not."""
    return PROCESS.hide_known(line.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
    libraries = {"PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "true"}
    libraries["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"  # a worker has the token that it is handed, or none
    return kept | libraries | {DAEMON_PID: str(os.getpid())}


def read_tail(log: Path, size_bytes: int = TAIL_BYTES) -> str:
    """The end of a log, without secrets: what a library writes past Python's streams no worker can hide."""
    try:
        with open(log, "rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - size_bytes - LONGEST_CHARS)
            file.seek(begin)
            text = PROCESS.hide(file.read().decode(errors="replace"))
    except OSError:
        return ""
    if begin:  # perhaps in the middle of a secret: leave the rest of that line out
        newline = text.find("\n", 0, LONGEST_CHARS)
        text = text[newline + 1 :] if newline >= 0 else text[LONGEST_CHARS:]
    return text.encode()[-size_bytes:].decode(errors="ignore")


def starttime(pid: int) -> int:
    """Field 22 of /proc/PID/stat, clock ticks since boot: with the boot id it tells a process from a later one."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _lives(pid: int, pid_starttime: int) -> bool:
    """A process that waits only to be reaped does not: it has nothing any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z" and starttime(pid) == pid_starttime


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def kill_orphan(pid: int | None, pid_starttime: int | None, boot: str | None) -> bool:
    """Kill the group of a worker that a dead daemon has left, if that process is still the same one, and wait for its
    end: call it in a thread.
    """
    if not pid or boot != boot_id() or not pid_starttime or starttime(pid) != pid_starttime:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    end = time.monotonic() + _ORPHAN_S
    while _lives(pid, pid_starttime) and time.monotonic() < end:
        time.sleep(0.01)
    return True
