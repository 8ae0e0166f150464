"""Sockets that systemd has opened for the daemon (sd_listen_fds(3)): file descriptors from 3 on."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from mistudiod.settings import SettingsError

_FIRST = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def take(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """From the environment, out of which they are taken: what the daemon starts has none of them.

    Raises SettingsError when what was passed cannot be listened on.
    """
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()):
        return []  # meant for whoever started us
    if not count.isdecimal():
        raise SettingsError(f"LISTEN_FDS is {count!r}, but must be the number of sockets that systemd passes")
    known = names.split(":") if names else []
    opened: list[socket.socket] = []
    try:
        for at in range(int(count)):
            opened.append(_listening(_FIRST + at, known[at] if at < len(known) else ""))
    except SettingsError:
        for one in opened:
            one.close()
        raise
    return opened


def _listening(number: int, name: str) -> socket.socket:
    called = f" ({name})" if name and name != "unknown" else ""
    try:
        os.set_inheritable(number, False)
        found = socket.socket(fileno=number)
    except OSError as error:
        raise SettingsError(f"file descriptor {number}{called} of LISTEN_FDS is no socket: {error.strerror}") from None
    if found.family not in _FAMILIES or not _accepts(found):
        found.close()
        raise SettingsError(
            f"file descriptor {number}{called} of LISTEN_FDS is no socket that connections come to: "
            "give TCP or UNIX sockets by ListenStream=, with Accept=no"
        )
    return found


def _accepts(found: socket.socket) -> bool:
    is_stream = found.type == socket.SOCK_STREAM
    return is_stream and bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
