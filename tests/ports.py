"""Ports for programs that have to be told theirs before they listen."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FOR_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """At which nobody listens, and which the kernel gives to nobody meanwhile: it lies below those for connections and
    for whoever asks for any.
    """
    lowest = int(_FOR_CONNECTIONS.read_text().split()[0])
    ports = range(10_000, lowest) or range(10_000, 1 << 16)
    for _ in range(1000):
        port = random.SystemRandom().choice(ports)
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
