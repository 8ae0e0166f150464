"""What every session of a daemon works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistudiod.leases import Leases
from mistudiod.runner import Grace
from mistudiod.wanted import Wanted


@dataclass(frozen=True)
class Tools:
    """``grace_s``: to finish what it writes when a job needs the GPU.

    ``plan``: the bytes that it will take, None when they are not known; raises OutOfMemory. ``changed`` is called when
    there is something new to see, ``freed`` when a process has given back its memory, ``wake`` when the GPU may be had
    again.
    """

    folder: Path
    data: Path
    leases: Leases
    grace: Grace
    grace_s: float
    command: Sequence[str]
    plan: Callable[[Wanted], Awaitable[int | None]]
    changed: Callable[[], None]
    freed: Callable[[], None]
    wake: Callable[[], None]
    closing: Callable[[], bool]
