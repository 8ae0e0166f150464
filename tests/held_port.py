"""A port that is free, and that nobody else on this machine is given meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """Of 127.0.0.1. Within the block whoever is told of it can listen there, again and again, and whoever is not is
    given another by the kernel; while nobody listens, connections are refused.

    It is bound all the while and never listened on, which SO_REUSEADDR (every server here sets it) lets others do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
