"""Waiting for a job: asked again and again, at first often, later once a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mistudio.errors import Unreachable
from mistudio.stream import PATIENCE_S

ENDED = frozenset({"done", "partial", "failed", "stopped"})  # states from which a job goes nowhere by itself
_LONGEST_PAUSE_S = 1.0


def wait(ask: Callable[[], dict[str, Any]], timeout: float | None, state: str | None = None) -> dict[str, Any]:
    """The job once it is in ``state`` or has ended. Raises TimeoutError; Unreachable when the studio stays away."""
    began = last_seen = time.monotonic()
    found = ask()
    pause_s = 0.05
    while found["state"] not in ENDED and found["state"] != state:
        if timeout is not None:
            left_s = began + timeout - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"job {found['id']} is still {found['state']} after {timeout:g} s")
            pause_s = min(pause_s, left_s)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        try:
            found, last_seen = ask(), time.monotonic()
        except Unreachable:
            if time.monotonic() - last_seen > PATIENCE_S:
                raise
    return found
