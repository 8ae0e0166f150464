"""How long a session stays: when nobody uses it, as Ollama writes it ("5m", "1h30m", 0, -1, or seconds), and when a job
waits for the GPU. Pure.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

FOREVER = math.inf
LONGEST_S = 365 * 86_400.0
MOST_HELD_S = 3600.0  # that a session may keep queued jobs from the GPU
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PART = f"({_NUMBER})(h|ms|m|s)"


def seconds_of(given: str | float) -> float:
    """Seconds, or FOREVER for anything below 0. Raises ValueError in one sentence."""
    text = str(given).strip()
    sign, size = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(_NUMBER, size):
        seconds = sign * float(size)
    elif re.fullmatch(f"({_PART})+", size):
        seconds = sign * sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, size))
    else:
        raise ValueError(f"{text[:40]!r} is no duration: give one such as 5m, 1h30m, 90 (seconds), 0, or -1 for ever")
    if seconds > LONGEST_S:
        raise ValueError(f"{text[:40]!r} is longer than a year: give -1 for ever")
    return FOREVER if seconds < 0 else seconds


def held_s(given: str | float) -> float:
    """How long the GPU is held against queued jobs. Raises ValueError in one sentence."""
    seconds = seconds_of(given)
    if not 0 < seconds <= MOST_HELD_S:
        raise ValueError(f"{str(given)[:40]!r} is not between 1s and 1h, which a session may hold the GPU at most")
    return seconds


@dataclass
class Stay:
    """Of one session. Times are of time.monotonic().

    ``held_until``: so long it keeps the GPU though a job waits. ``insisted``: it may have the GPU though jobs waited
    before it, and their patience begins when it is loaded.
    """

    keep_alive_s: float
    used_at: float
    held_until: float = 0.0
    insisted: bool = False
    loaded_at: float | None = None

    def expires_at(self) -> float | None:
        """When it ends if nobody uses it; None: never."""
        return None if self.keep_alive_s == FOREVER else self.used_at + self.keep_alive_s

    def yields_at(self, job_since: float, busy: bool, grace_s: float) -> float | None:
        """When it makes room for a job that waits since ``job_since``; None while that is not known.

        An idle session does so at once, one that is ``busy`` has ``grace_s`` to come to an end.
        """
        since = max(job_since, self.held_until)
        if self.insisted:
            if self.loaded_at is None:
                return None
            since = max(since, self.loaded_at)
        return since + grace_s if busy else since
