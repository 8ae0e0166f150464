"""Where the daemon listens: a TCP port, and a UNIX socket in the data folder for its own user."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mistudiod.settings import Settings

log = logging.getLogger("mistudiod")
_LONGEST_PATH = 107  # bytes that the kernel has room for


def tcp(settings: Settings) -> socket.socket:
    """Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    return socket.create_server((settings.listen, settings.port), family=family, backlog=128)


@contextlib.contextmanager
def unix(path: Path) -> Iterator[socket.socket | None]:
    """Only the daemon's user can connect. None when there can be none there; the daemon does without.

    The data folder must be claimed: what lies there is then a dead daemon's.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        log.warning("no UNIX socket: the path %s is longer than %d bytes", path, _LONGEST_PATH)
        yield None
        return
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)  # from its first moment nobody else may connect
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(128)
    except OSError as error:
        log.warning("no UNIX socket at %s: %s", path, error.strerror)
        listener.close()
        os.umask(before)
        yield None
        return
    os.umask(before)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)
