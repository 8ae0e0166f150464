"""The jobs' turn on the GPU, after a session for which jobs have waited: so that who steers again and again cannot keep
them from getting ahead. Pure.
"""

from __future__ import annotations

import math
import time

from mistudiod.events import Progress

_LONGEST = 16  # times as long as usual
At = tuple[int, str, float]  # a job, its stage, and how much of that is done


class Turn:
    """It lasts until a job has ended, or been at work for ``work_s``, however long it takes to be at work. Meanwhile no
    job makes room for a session, and one that waits is let in before it.

    After a turn of which a job has lost something, for it had not come to a place to go on from, its next is twice as
    long.
    """

    def __init__(self, work_s: float) -> None:
        self._usual_s = self._work_s = work_s
        self._over_at = -math.inf  # of time.monotonic()
        self._at: At | None = None  # how far a job has come, since the turn has begun
        self._left: At | None = None  # how far it had come before
        self._lost = False

    @property
    def left_s(self) -> float:
        """0 when there is none; infinite until a job is at work."""
        return max(0.0, self._over_at - time.monotonic())

    def begin(self) -> None:
        self._left, self._at = self._at or self._left, None
        self._over_at = math.inf

    def end(self) -> None:
        """A session has the GPU, or the job has ended."""
        self._over_at = -math.inf

    def sees(self, job: int, stage: str, done: float) -> None:
        """How far a job of the GPU has come. One that goes on tells first how far it had come, and then works."""
        was, self._at = self._at, (job, stage, done)
        if self._over_at < math.inf or stage.startswith("load"):
            return
        self._lost |= _is_further(self._left, self._at)
        if _is_further(self._at, was):
            self._work_s = min(2 * self._work_s, _LONGEST * self._usual_s) if self._lost else self._usual_s
            self._lost = False
            self._over_at = time.monotonic() + self._work_s


def _is_further(one: At | None, other: At | None) -> bool:
    """In the same stage of the same job."""
    return one is not None and other is not None and one[:2] == other[:2] and one[2] > other[2]


def waiting(job: int, left_s: float) -> Progress:
    """What whoever waits for the end of the turn is told."""
    eta_s = left_s if left_s < math.inf else None
    return Progress(stage=f"let job {job} get ahead first", done=0, total=None, unit="", eta_s=eta_s)
