"""The log for systemd's journal: each line says how grave it is (``<4>``), and the journal itself notes the time."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TextIO

_GRAVITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog's numbers
_DEBUG = 7


def goes_there(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` is what systemd has tied to the journal, and not a file that took its place."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Lines(logging.Formatter):
    """Every line of a record has the mark: a traceback's lines are entries of their own."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        mark = next((number for least, number in _GRAVITY if record.levelno >= least), _DEBUG)
        return "\n".join(f"<{mark}>{line}" for line in super().format(record).splitlines())
