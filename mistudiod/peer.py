"""Who is at the other end of a connection: this user on this machine, or anybody else.

A UNIX socket says it itself (SO_PEERCRED). For loopback TCP the kernel's table of sockets says whose the other end is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from mistudiod.proxies import Address, plain

_ROOT = 0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_TABLES = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
_PROXIED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_known: WeakKeyDictionary[asyncio.BaseTransport, bool] = WeakKeyDictionary()


def is_unix(request: web.Request) -> bool:
    """Whether the request came over a UNIX socket."""
    return _socket(request) is not None and _socket(request).family == socket.AF_UNIX


def is_proxied(request: web.Request) -> bool:
    """Whether the request says of itself that somebody else has sent it on."""
    return any(header in request.headers for header in _PROXIED)


def address(request: web.Request) -> Address | None:
    """Whose address the request came from; None over a UNIX socket."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return plain(str(peer[0])) if isinstance(peer, tuple) else None


def network_of(found: Address) -> str:
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def over_loopback(request: web.Request) -> bool:
    """Whether the request came over TCP to an address that only this machine can reach."""
    own = request.transport.get_extra_info("sockname") if request.transport else None
    return isinstance(own, tuple) and plain(str(own[0])).is_loopback


def same_user(request: web.Request) -> bool:
    """Whether a process of the daemon's own user, on this machine, has sent the request; False when that is unsure.

    Root counts on the UNIX socket only: on loopback it is as likely a proxy that root runs for everybody.
    """
    transport = request.transport
    if transport is None or is_proxied(request):
        return False  # a proxy of ours speaks for somebody else
    if transport not in _known:
        _known[transport] = _is_ours(_socket(request))
    return _known[transport]


def _socket(request: web.Request) -> Any:
    return request.transport.get_extra_info("socket") if request.transport else None


def _is_ours(connection: Any) -> bool:
    try:
        if connection.family == socket.AF_UNIX:
            return _unix_peer(connection) in (os.geteuid(), _ROOT)
        return _tcp_peer(connection.getpeername(), connection.getsockname()) == os.geteuid()
    except (OSError, AttributeError, ValueError):  # it has gone meanwhile, or this is not Linux
        return False


def _unix_peer(connection: Any) -> int:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def _tcp_peer(peer: tuple[Any, ...], own: tuple[Any, ...]) -> int | None:
    """The uid whose socket is at ``peer`` and connected to ``own``; None when either is not loopback or unknown."""
    theirs, ours = plain(peer[0]), plain(own[0])
    if not (theirs.is_loopback and ours.is_loopback):
        return None
    for version, local, remote in _written(theirs, int(peer[1]), ours, int(own[1])):
        for line in _TABLES[version].read_text().splitlines()[1:]:
            fields = line.split()
            # A socket that its process has closed belongs to nobody, yet is listed with uid 0 and inode 0.
            if fields[1] == local and fields[2] == remote and fields[9] != "0":
                return int(fields[7])
    return None


def _written(theirs: Address, port: int, ours: Address, own_port: int) -> Iterator[tuple[int, str, str]]:
    """How the kernel may list the connection: an IPv4 one in either table, for programs also open it as IPv6."""
    yield theirs.version, _hexadecimal(theirs, port), _hexadecimal(ours, own_port)
    if theirs.version == 4:
        mapped = [ipaddress.ip_address(f"::ffff:{address}") for address in (theirs, ours)]
        yield 6, _hexadecimal(mapped[0], port), _hexadecimal(mapped[1], own_port)


def _hexadecimal(address: Address, port: int) -> str:
    """``0100007F:1A2B``: words of 32 bits in the machine's own byte order."""
    words = [address.packed[at : at + 4] for at in range(0, len(address.packed), 4)]
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{text}:{port:04X}"
