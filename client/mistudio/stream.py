"""Server-sent events, read (WHATWG HTML, section 9.2), and the connection made anew when it is lost."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mistudio.errors import Unreachable

TRY_AGAIN_S = 1.0  # until the studio says otherwise
LONGEST_TRY_AGAIN_S = 30.0
PATIENCE_S = 30.0  # a daemon that is started anew needs a few
# A line ends at CR LF, LF or CR; a CR at the end of what has come may be half of CR LF.
_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)

Event = dict[str, Any]
Connect = Callable[[str], AbstractContextManager[Iterator[bytes]]]


class Records:
    """Bytes in, events out: ``{"id", "topic", "data"}`` with the data read from JSON.

    ``last_id`` is that of the newest record that has come whole, ``retry_s`` how long to wait before coming back.
    """

    def __init__(self, last_id: str = "", retry_s: float = TRY_AGAIN_S) -> None:
        self.last_id, self.retry_s = last_id, retry_s
        self._rest = b""
        self._id, self._topic, self._data = last_id, "", list[str]()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode(errors="replace"))
                continue
            self.last_id = self._id  # of a record without data too
            topic, data, self._topic, self._data = self._topic, self._data, "", []
            if data:
                yield {"id": self.last_id, "topic": topic or "message", "data": json.loads("\n".join(data))}

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._topic = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = min(int(value) / 1000, LONGEST_TRY_AGAIN_S)


def listen(connect: Connect, after: str = "") -> Iterator[Event]:
    """The events of one connection after another, each going on after the last event of the one before.

    ``connect`` takes the id of the last event, and raises Unreachable when it cannot, or is cut off.
    ``{"topic": "connected"}`` comes first and after each new connection, ``{"topic": "lost"}`` when one is lost.
    Raises Unreachable when the first connection fails, or none was made for PATIENCE_S.
    """
    last_seen: float | None = None
    connected = False
    records = Records(after)
    while True:
        try:
            with connect(records.last_id) as chunks:
                connected = True
                yield {"id": records.last_id, "topic": "connected", "data": {}}
                last_seen = time.monotonic()
                records = Records(records.last_id, records.retry_s)  # what was cut off is no part of what comes
                for chunk in chunks:
                    yield from records.feed(chunk)
                    last_seen = time.monotonic()
        except Unreachable:
            if connected:
                last_seen = time.monotonic()  # a line that fell silent long ago: nobody has tried a new one yet
            elif last_seen is None or time.monotonic() - last_seen > PATIENCE_S:
                raise
        if connected:
            yield {"id": records.last_id, "topic": "lost", "data": {}}
        connected = False
        time.sleep(records.retry_s * random.uniform(0.5, 1.5))  # not all readers at the same moment
