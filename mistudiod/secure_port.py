"""A TCP port that other machines can reach: TLS and nothing else, and no peer can take it up for itself alone.

A connection has HANDSHAKE_S to get through TLS. Each address, or IPv6 /64, may have PER_NETWORK open, all together
OPEN_AT_ONCE; this machine's own do not count. Addresses of the internet are closed on, unless ``allow_public``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence

from mistudiod.peer import network_of
from mistudiod.proxies import Address, plain

log = logging.getLogger("mistudiod.port")
HANDSHAKE_S = 10.0
PER_NETWORK = 128
OPEN_AT_ONCE = 1024
_WARN_EVERY_S = 60.0
_REST_S = 1.0  # until it is tried again, when no connection can be taken
_TLS = b"\x16"  # the first byte that a TLS client sends: a handshake record
_HEAD_BYTES = 8192
_REQUEST = re.compile(rb"(GET|HEAD) (/[\x21-\x7e]*) HTTP/1\.[01]\r\n")
_HOST = re.compile(rb"\r\nhost: *([0-9a-z.:_\[\]-]{1,255}) *\r\n", re.IGNORECASE)
_SENTENCE = "this port speaks HTTPS only: begin the address with https://"


class SecurePort:
    """``server`` makes the protocol of a connection that got through, as asyncio's servers do."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        server: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        allow_public: bool,
    ) -> None:
        self._server, self._context, self._allow_public = server, context, allow_public
        self._open: dict[str, set[socket.socket]] = {}  # by network; one that has been closed is no file any more
        self._warned_at = float("-inf")
        self._beginning: set[asyncio.Task[None]] = set()
        self._listeners = listeners
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        for one in listeners:
            one.setblocking(False)
            self._listen(one)

    async def close(self) -> None:
        """Take no more; those that are through stay."""
        for handle in self._resting.values():
            handle.cancel()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        tasks = list(self._beginning)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self, listener: socket.socket) -> None:
        self._resting.pop(listener, None)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Without a pause in which an end could lose a connection that has been taken."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it has gone before it was taken
            return
        except OSError as error:
            log.warning("no connection can be taken: %s", error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._resting[listener] = loop.call_later(_REST_S, self._listen, listener)
            return
        if not self._takes(connection):
            connection.close()
            return
        connection.setblocking(False)
        task = asyncio.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(functools.partial(self._begun, connection))

    def _begun(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        if task.cancelled():  # perhaps before its first step
            connection.close()

    def _takes(self, connection: socket.socket) -> bool:
        try:
            peer, own = plain(connection.getpeername()[0]), plain(connection.getsockname()[0])
        except OSError:
            return False
        if peer.is_loopback:
            return True
        if not is_near(peer, own):
            self._warn(
                f"{peer} is an address of the internet: {'let in' if self._allow_public else 'refused'} "
                "(see the setting allow_public)"
            )
            if not self._allow_public:
                return False
        self._open = {
            network: left
            for network, them in self._open.items()
            if (left := {one for one in them if one.fileno() >= 0})
        }
        theirs = self._open.setdefault(network_of(peer), set())
        if len(theirs) >= PER_NETWORK or self._count() >= OPEN_AT_ONCE:
            self._warn(f"{peer} was refused: it has {len(theirs)} connections open, of {self._count()} in all")
            return False
        theirs.add(connection)
        return True

    def _count(self) -> int:
        return sum(map(len, self._open.values()))

    def _warn(self, sentence: str) -> None:
        """Not more often than a log bears."""
        if time.monotonic() - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = time.monotonic()
            log.warning(sentence)

    async def _begin(self, connection: socket.socket) -> None:
        """Whatever comes of it, a connection that does not get through is closed."""
        try:
            is_tls = await asyncio.wait_for(self._speaks_tls(connection), HANDSHAKE_S)
            if not is_tls:
                await asyncio.wait_for(_redirect(connection), HANDSHAKE_S)
        except (OSError, asyncio.TimeoutError):
            is_tls = False
        if not is_tls:
            connection.close()
            return
        with contextlib.suppress(OSError):  # it spoke no TLS that we know, or was too slow: asyncio has closed it
            await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )

    async def _speaks_tls(self, connection: socket.socket) -> bool:
        """By its first byte, which stays where it is."""
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_reader(connection, came.set)
        try:
            await came.wait()
        finally:
            loop.remove_reader(connection)
        return connection.recv(1, socket.MSG_PEEK) == _TLS


def is_near(peer: Address, own: Address) -> bool:
    """Whether an address is none of the internet, or of the network in which it has reached our own address."""
    bits = 24 if own.version == 4 else 64
    return not peer.is_global or peer in ipaddress.ip_network((own, bits), strict=False)


async def _redirect(connection: socket.socket) -> None:
    """Answer plain HTTP: go to https, where that is a page to be read; else a sentence."""
    loop, head = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        more = await loop.sock_recv(connection, _HEAD_BYTES)
        if not more:
            break
        head += more
    asked, host = _REQUEST.match(head), _HOST.search(head)
    body = json.dumps({"error": {"code": "invalid", "message": _SENTENCE}}).encode()
    lines = [b"HTTP/1.1 400 Bad Request"]
    if asked and host:
        lines = [b"HTTP/1.1 307 Temporary Redirect", b"Location: https://" + host[1] + asked[2]]
    lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close", b"", b""]
    await loop.sock_sendall(connection, b"\r\n".join(lines) + (b"" if head.startswith(b"HEAD ") else body))
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, _HEAD_BYTES):  # closed on what is still coming, the answer would be lost
        pass
