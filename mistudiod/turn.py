"""The jobs' turn on the GPU, after a session for which jobs have waited: so that who steers again and again cannot keep
them from getting ahead. Pure.
"""

from __future__ import annotations

import math
import time

from mistudiod.events import Progress

_LONGEST = 16  # times as long as usual
At = tuple[int, str, float, float | None]  # a job, its stage, how much of how much is done


class Turn:
    """It lasts until a job has ended, or been at work for ``work_s``, however long it takes to be at work (not longer
    than the longest turn). Meanwhile no job makes room for a session, and one that waits is let in before it.

    A job that begins where it began in its turn before has kept nothing of that: this one is twice as long.
    """

    def __init__(self, work_s: float) -> None:
        self._usual_s = self._work_s = work_s
        self._over_at = -math.inf  # of time.monotonic()
        self._works = True
        self._at: At | None = None  # how far a job has come
        self._began: At | None = None  # where it began in this turn
        self._began_before: At | None = None

    @property
    def left_s(self) -> float:
        """0 when there is none; infinite until a job is at work."""
        left_s = max(0.0, self._over_at - time.monotonic())
        return left_s if self._works or not left_s else math.inf

    def begin(self) -> None:
        self._began_before, self._began, self._at = self._began or self._began_before, None, None
        self._over_at, self._works = time.monotonic() + _LONGEST * self._usual_s, False

    def end(self) -> None:
        """A session has the GPU, or the job has left it."""
        self._over_at, self._works = -math.inf, True

    def sees(self, job: int, stage: str, done: float, total: float | None) -> None:
        """How far a job of the GPU has come. One that goes on tells first how far it had come, and then works."""
        was, self._at = self._at, (job, stage, done, total)
        if self._works or stage.startswith("load"):
            return
        self._began = self._began or self._at
        if was is not None and was[:2] == (job, stage) and done > was[2]:
            in_vain = self._began == self._began_before
            self._work_s = min(2 * self._work_s, _LONGEST * self._usual_s) if in_vain else self._usual_s
            self._over_at, self._works = time.monotonic() + self._work_s, True


def waiting(job: int, left_s: float) -> Progress:
    """What whoever waits for the end of the turn is told."""
    eta_s = left_s if left_s < math.inf else None
    return Progress(stage=f"let job {job} get ahead first", done=0, total=None, unit="", eta_s=eta_s)
