"""How often somebody may be wrong: then each further try has to wait. Nobody is locked out for good."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_KNOWN = 4096  # whose failures are remembered at once


class Throttle:
    """``allowed`` failures at once, and as many again in every ``span_s`` seconds."""

    def __init__(self, allowed: int, span_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed, self._rate, self._clock = allowed, allowed / span_s, clock
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many still count, and when that was

    def wait_s(self, who: str) -> float:
        """How long it has to wait before its next try; 0 when it need not."""
        return max(0.0, (self._count(who) + 1 - self._allowed) / self._rate)

    def failed(self, who: str) -> None:
        self._failures[who] = self._count(who) + 1, self._clock()
        self._failures.move_to_end(who)
        while len(self._failures) > _KNOWN:  # whoever comes from so many addresses is held up by other limits
            self._failures.popitem(last=False)

    def _count(self, who: str) -> float:
        count, at = self._failures.get(who, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * self._rate)
