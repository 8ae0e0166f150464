"""What the service manager hears of the daemon: the protocol of sd_notify(3), a datagram of NAME=VALUE lines."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger("mistudiod.notify")
_SEND_LIMIT_S = 1.0


class Notify:
    """``address`` is a path, or an abstract name behind an @; without one nobody listens, and ``say`` says nothing.

    ``watchdog_s``: so often at least the manager wants to hear WATCHDOG=1; None when it does not.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self.address, self.watchdog_s = address, watchdog_s
        self._failed = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Notify:
        """From the environment, out of which it is taken: what the daemon starts must not speak for it."""
        address, microseconds = environ.pop("NOTIFY_SOCKET", ""), environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        watched = meant and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address if address[:1] in ("/", "@") else None, int(microseconds) / 1e6 if watched else None)

    def say(self, **lines: object) -> None:
        """As ``say(READY=1, STATUS="at work")``. That it cannot be said is logged once."""
        if self.address is None:
            return
        # A value is one line, whatever a job or a file is called.
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in lines.items())
        path = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
                door.settimeout(_SEND_LIMIT_S)
                door.sendto(text.encode(), path)
        except OSError as error:
            if not self._failed:
                log.warning("the service manager cannot be told anything at %s: %s", self.address, error)
            self._failed = True
