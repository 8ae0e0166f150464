"""UNIX sockets whose path is longer than the kernel has room for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 107  # bytes (man 7 unix); a Mac has room for 103


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """``path`` as a socket can be bound or connected to it: a long one by way of its folder, which is open meanwhile.

    Linux alone has that way. Raises OSError when the folder of a long one cannot be opened.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
