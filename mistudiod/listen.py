"""Where the daemon listens: TCP ports, a UNIX socket in the data folder for its user, one for the group of a service.

What systemd has opened for it takes the place of the ports and of the last.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mistudiod.settings import LAN, Settings, is_loopback
from mistudiod.socket_path import reachable

log = logging.getLogger("mistudiod")
GROUP_SOCKET = "api.sock"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1", LAN: "127.0.0.1"}
_TRIES = 20  # to find a port that is free in both families


@dataclass
class Reach:
    """How other machines reach the daemon: its URL and its certificate's fingerprint. None: they do not."""

    url: str | None = None
    fingerprint: str | None = None


def on(settings: Settings, given: Sequence[socket.socket]) -> tuple[Settings, list[socket.socket]]:
    """What is listened on by TCP, and the settings as they are then: who needs a token hangs on the address.

    ``given``: what systemd has opened. Raises OSError when the port is taken.
    """
    listeners = [one for one in given if one.family != socket.AF_UNIX]
    if not listeners:
        return settings, tcp(settings)
    # One that can be reached from elsewhere makes everybody need a token.
    host, port = max((one.getsockname()[:2] for one in listeners), key=lambda found: not is_loopback(found[0]))
    return replace(settings, listen=host, port=port), listeners


def tcp(settings: Settings) -> list[socket.socket]:
    """Raises OSError when the port is taken."""
    if settings.listen != LAN:
        return [_server(settings.listen, settings.port)]
    for _ in range(_TRIES):
        first = _server("0.0.0.0", settings.port)
        try:
            return [first, _server("::", first.getsockname()[1])]
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # a machine without IPv6
                return [first]
            first.close()
            if settings.port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _server(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def local(
    path: Path, given: Sequence[socket.socket], environ: Mapping[str, str], opened: contextlib.ExitStack
) -> list[socket.socket]:
    """The UNIX sockets: that of the daemon's user at ``path``, and that of a service's group: a ``given`` one, or
    ``api.sock`` in the folder that systemd has made for it. The data folder must be claimed.
    """
    doors = [one for one in given if one.family == socket.AF_UNIX]
    wanted = [(path, 0o600)]
    if not doors and (folder := environ.get("RUNTIME_DIRECTORY")):
        wanted.append((Path(folder.split(":")[0]) / GROUP_SOCKET, 0o660))
    own = [opened.enter_context(unix(*one)) for one in wanted]
    return doors + [one for one in own if one is not None]


def here(settings: Settings) -> str:
    """The host at which this machine itself reaches a daemon with these settings."""
    return _ANY.get(settings.listen, settings.listen)


def connection(settings: Settings, limit_s: float) -> http.client.HTTPConnection:
    """To ask whoever listens there what it is. It is told nothing, so whose certificate it has does not matter."""
    if is_loopback(settings.listen):
        return http.client.HTTPConnection(here(settings), settings.port, timeout=limit_s)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(here(settings), settings.port, timeout=limit_s, context=context)


@contextlib.contextmanager
def unix(path: Path, mode: int = 0o600) -> Iterator[socket.socket | None]:
    """Whoever may write to it by its ``mode`` can connect. None when there can be none there; the daemon does without.

    No other daemon may be at work there: what lies at ``path`` is then a dead one's.
    """
    with contextlib.ExitStack() as opened:
        door, heard = opened.enter_context(socket.socket(socket.AF_UNIX)), False
        before = os.umask(0o777 & ~mode)  # from its first moment nobody else may connect
        try:
            path.unlink(missing_ok=True)
            door.bind(opened.enter_context(reachable(path)))
            door.listen(128)
            heard = True
        except OSError as error:
            log.warning("no UNIX socket at %s: %s", path, error.strerror or error)
        finally:
            os.umask(before)
        if not heard:
            yield None
            return
        opened.callback(path.unlink, missing_ok=True)
        yield door
