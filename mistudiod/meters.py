"""What the daemon counts of itself while it runs: requests, how late its event loop is, how long writes take."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

LATE_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
WRITE_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
ANSWER_S = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
_LOOK_S = 0.25  # between two looks at the event loop: four times a second costs nothing


class Histogram:
    """``counts[i]``: values up to ``bounds[i]`` and over the bound before; the last has those over all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Meters:
    """Counts since the daemon was started; all of them are made and read in the event loop."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.late = Histogram(LATE_S)  # seconds after it was to go on, the event loop did
        self.requests: Counter[tuple[str, str, int]] = Counter()  # by method, route's template and status
        self.answers: dict[str, Histogram] = {}  # seconds until a route's answer was made, by its template

    def answered(self, method: str, template: str, status: int, seconds: float | None) -> None:
        """``seconds`` is None of a stream: how long its reader stays says nothing of us."""
        self.requests[method, template, status] += 1
        if seconds is not None:
            if template not in self.answers:
                self.answers[template] = Histogram(ANSWER_S)
            self.answers[template].add(seconds)

    async def watch_loop(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self.late.add(max(loop.time() - due, 0.0))
