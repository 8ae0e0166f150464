"""Where no worker ever connects to, whoever sends it there: a redirect, a dataset's card, a name that turned.

Libraries follow what they are told, each by an HTTP client of its own; Python tells of every connection before it is
made (https://docs.python.org/3/library/audit_events.html).
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from mistudiod.endpoints import refused_address
from mistudiod.worker.link import Refused


def guard() -> None:
    """From now on a connection to an address of ``refused_address`` raises Refused. It cannot be taken back."""
    sys.addaudithook(_look)


def _look(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and args[0].family in (socket.AF_INET, socket.AF_INET6):
        host, port = str(args[1][0]), args[1][1]
        for _, _, _, _, address in socket.getaddrinfo(host, port, args[0].family):
            if why := refused_address(str(address[0])):
                raise Refused(f"this was sent on to an address that is never asked: {why}")
