"""A service manager's part: it starts a daemon, and hears what that says by sd_notify."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from test_daemon import Daemon


@contextlib.contextmanager
def started(data: Path, *arguments: str, **environment: str) -> Iterator[Daemon]:
    """A daemon that is gone after the block."""
    daemon = Daemon(data, *arguments, **environment)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(30)
        assert daemon.process.stderr is not None
        daemon.process.stderr.close()


class Manager:
    """Listens at ``address``, a path or an abstract name behind an @; ``heard`` are the messages, oldest first."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def close(self) -> None:
        self._door.close()

    def listen(self, limit_s: float) -> dict[str, str] | None:
        """The next message; None when none comes."""
        self._door.settimeout(limit_s)
        try:
            text = self._door.recv(65_536).decode()
        except (TimeoutError, BlockingIOError):
            return None
        self.heard.append(dict(line.split("=", 1) for line in text.split("\n")))
        return self.heard[-1]

    def until(self, wanted: Callable[[dict[str, str]], bool], limit_s: float = 60.0) -> dict[str, str]:
        """The first message from now on that is wanted."""
        end = time.monotonic() + limit_s
        while (left := end - time.monotonic()) > 0:
            if (found := self.listen(left)) and wanted(found):
                return found
        raise AssertionError(self.heard)

    def drain(self) -> list[dict[str, str]]:
        """What has been said meanwhile."""
        before = len(self.heard)
        while self.listen(0.0):
            pass
        return self.heard[before:]
