"""What a resident worker is asked, a line of stdin each: waiting in order, one of them under way, some cancelled."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from typing import Any

log = logging.getLogger(__name__)
_CANCEL = re.compile(r"cancel ([0-9]{1,16})")


@dataclass(frozen=True)
class Request:
    number: int
    kind: str
    spec: dict[str, Any]


class Cancelled(BaseException):
    """Nobody wants the answer any more. Not an Exception: nothing on the way may swallow it."""


class Requests:
    """``hear`` is called by the thread that reads stdin, all else by the one that works."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Request | None] = SimpleQueue()
        self._open: set[int] = set()  # waiting, or under way
        self._cancelled: set[int] = set()
        self._current: int | None = None
        self._lock = Lock()

    def hear(self, line: str) -> None:
        """Take in a request or a cancel; anything else only wakes up who waits for a request, as a stop must."""
        if line.startswith("{"):
            try:
                asked = json.loads(line)
                request = Request(asked["request"], asked["kind"], asked["spec"])
            except (ValueError, LookupError) as error:  # the lines after it must be heard
                log.warning("not a request: %s: %s", type(error).__name__, error)
                return
            with self._lock:
                self._open.add(request.number)
            self._waiting.put(request)
        elif found := _CANCEL.fullmatch(line):
            with self._lock:
                self._cancelled |= {int(found[1])} & self._open
        else:
            self._waiting.put(None)

    def __iter__(self) -> Iterator[Request | None]:
        """The requests in order, without an end: each when the one before is done with. None when there was something
        else to hear.
        """
        while True:
            request = self._waiting.get()
            self._current = request.number if request else None
            yield request
            with self._lock:
                self._open.discard(self._current or 0)
                self._cancelled &= self._open

    def check(self) -> None:
        """Raise Cancelled when the request under way is not wanted any more."""
        if self._current in self._cancelled:
            raise Cancelled
