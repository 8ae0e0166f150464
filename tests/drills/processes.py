"""Faults of processes: killed, frozen, cut off, out of memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.drills.arena import Arena, Skipped
from tests.drills.daemon import Daemon, wait_for
from tests.drills.work import Lost

HOG = "x = []\nwhile True: x.append(bytearray(b'x' * (4 << 20)))"
CLOSED = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")


def worker_killed(arena: Arena) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(arena.worker(), signal.SIGKILL)


def daemon_killed(arena: Arena) -> None:
    arena.restart(signal.SIGKILL)


def both_killed(arena: Arena) -> None:
    arena.cut()
    arena.again()


def worker_terminated(arena: Arena) -> None:
    """As ``kill`` of somebody who looks for what takes the processor."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(arena.worker(), signal.SIGTERM)


def daemon_stopped(arena: Arena) -> None:
    """As at every shutdown of the machine."""
    code = arena.daemon.end(signal.SIGTERM)
    if code != 0:
        raise Lost(f"the daemon ended with {code} at SIGTERM")
    if left := arena.daemon.workers():
        raise Lost(f"workers outlive the daemon: {left}")
    arena.again()


def worker_frozen(arena: Arena) -> None:
    _freeze(arena, arena.worker())


def daemon_frozen(arena: Arena) -> None:
    """As when a laptop sleeps: the workers go on, and nobody listens."""
    _freeze(arena, arena.daemon.pid)


def _freeze(arena: Arena, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(arena.random.uniform(1, 6))
        os.kill(pid, signal.SIGCONT)


def terminated_while_it_starts(arena: Arena) -> None:
    arena.daemon.end(signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGKILL):
        begun = Daemon(arena.data, arena.log, arena.environ)
        time.sleep(arena.random.uniform(0, 1.5))
        code = begun.end(number)
        if code not in (0, -number):
            raise Lost(f"the daemon ended with {code} at signal {number} while it started: {begun.said()}")
    arena.again()


def started_without_a_terminal(arena: Arena) -> None:
    """With stdin, stdout and stderr closed, as by some supervisors; other files are given their numbers then."""
    arena.daemon.end(signal.SIGKILL)
    arena.mended()
    arena.daemon = Daemon(arena.data, arena.data / "mistudiod.log", arena.environ, *CLOSED).ready()


def events_broken(arena: Arena) -> None:
    """Nobody reads any more what a worker says."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(arena.worker(), signal.SIGUSR2)


def watchers_broken(arena: Arena) -> None:
    """Browsers that go away in the middle of an event, and some that never read what they asked for."""
    address = urlsplit(arena.daemon.url)
    deaf = []
    for _ in range(20):
        watcher = socket.create_connection((address.hostname or "", address.port or 0))
        watcher.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closed by a reset
        watcher.sendall(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        deaf.append(watcher)
    time.sleep(arena.random.uniform(0.2, 2))
    for watcher in deaf:
        watcher.close()


def out_of_memory(arena: Arena) -> None:
    """The worker is refused whatever more it asks for."""
    pid = arena.worker()
    try:
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
    except (OSError, ValueError) as error:
        raise Skipped("the worker has just ended") from error
    wait_for(lambda: pid not in arena.daemon.workers().values(), 10)


def machine_out_of_memory(arena: Arena) -> None:
    """Another program takes all that there is, until the kernel ends somebody: it must be a worker."""
    arena.worker()
    before = set(arena.daemon.workers().values())
    with own_memory(arena, 64 << 20) as group:
        join = f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(__import__('os').getpid()))\n"
        adjust = "open('/proc/self/oom_score_adj', 'w').write('-500')\n"
        with subprocess.Popen([sys.executable, "-c", adjust + join + HOG], stderr=subprocess.DEVNULL) as hog:
            wait_for(lambda: before - set(arena.daemon.workers().values()) or hog.poll() is not None, 20)
            hog.kill()
    if arena.daemon.process.poll() is not None:
        raise Lost("the kernel ended the daemon for want of memory, not a worker")


@contextlib.contextmanager
def own_memory(arena: Arena, more_bytes: int) -> Iterator[Path]:
    """As if the machine had so much more memory than the studio has now, and none besides: its control group."""
    root = Path("/sys/fs/cgroup/memory")
    if os.geteuid() != 0 or not (root / "memory.limit_in_bytes").exists():
        raise Skipped("no memory control group (v1) can be made here")
    group = root / f"mistudio-drill-{os.getpid()}"
    group.mkdir(exist_ok=True)
    processes = [arena.daemon.pid, *arena.daemon.workers().values()]
    try:
        with contextlib.suppress(OSError):  # newer kernels leave what is there to the group that it was taken in
            (group / "memory.move_charge_at_immigrate").write_text("1")
        for pid in processes:
            with contextlib.suppress(OSError):
                (group / "cgroup.procs").write_text(str(pid))
        limit = int((group / "memory.usage_in_bytes").read_text()) + more_bytes
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        (group / "memory.limit_in_bytes").write_text("-1")
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            group.rmdir()
