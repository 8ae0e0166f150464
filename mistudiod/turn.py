"""The jobs' turn on the GPU, after a session that they made room for: so that who steers again and again cannot keep a
job from getting ahead. Pure.
"""

from __future__ import annotations

import math
import time

from mistudiod.events import Progress


class Turn:
    """It lasts until a job has been at work for ``work_s``, however long it takes to be at work. Meanwhile no job makes
    room for a session, and those that wait are let in before it.
    """

    def __init__(self, work_s: float) -> None:
        self._work_s = work_s
        self._over_at = -math.inf  # of time.monotonic()

    @property
    def left_s(self) -> float:
        """0 when there is none; infinite until a job is at work."""
        return max(0.0, self._over_at - time.monotonic())

    def begin(self) -> None:
        self._over_at = math.inf

    def end(self) -> None:
        """A session has the GPU."""
        self._over_at = -math.inf

    def works(self) -> None:
        """A job of the GPU has done something."""
        if self._over_at == math.inf:
            self._over_at = time.monotonic() + self._work_s


def waiting(job: int, left_s: float) -> Progress:
    """What whoever waits for the end of the turn is told."""
    eta_s = left_s if left_s < math.inf else None
    return Progress(stage=f"let job {job} get ahead first", done=0, total=None, unit="", eta_s=eta_s)
