"""Server-sent events, read (WHATWG HTML, section 9.2), and the connection made anew when it is lost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mistudio.errors import Unreachable

TRY_AGAIN_S = 1.0
PATIENCE_S = 30.0  # a daemon that is started anew needs a few
# A line ends at CR LF, LF or CR; a CR at the end of what has come may be half of CR LF.
_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)

Event = dict[str, Any]


class Records:
    """Bytes in, events out: ``{"id", "topic", "data"}`` with the data read from JSON."""

    def __init__(self) -> None:
        self._rest = b""
        self._id, self._topic, self._data = "", "", list[str]()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode(errors="replace"))
                continue
            if self._data:
                yield {"id": self._id, "topic": self._topic or "message", "data": json.loads("\n".join(self._data))}
            self._topic, self._data = "", []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._topic = value
        elif name == "id":
            self._id = value


def listen(connect: Callable[[], AbstractContextManager[Iterator[bytes]]]) -> Iterator[Event]:
    """The events of one connection after another. ``connect`` raises Unreachable when it cannot, or is cut off.

    ``{"topic": "connected"}`` comes first and after each new connection, ``{"topic": "lost"}`` when one is lost.
    Raises Unreachable when the first connection fails, or none was made for PATIENCE_S.
    """
    last_seen: float | None = None
    connected = False
    while True:
        try:
            with connect() as chunks:
                connected = True
                yield {"id": "", "topic": "connected", "data": {}}
                last_seen = time.monotonic()
                records = Records()
                for chunk in chunks:
                    yield from records.feed(chunk)
                    last_seen = time.monotonic()
        except Unreachable:
            if last_seen is None or time.monotonic() - last_seen > PATIENCE_S:
                raise
        if connected:
            yield {"id": "", "topic": "lost", "data": {}}
        connected = False
        time.sleep(TRY_AGAIN_S)
