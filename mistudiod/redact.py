"""Secrets taken out of text before anybody can read it: those this process knows, and what looks like one.

What a process knows to be secret it knows for good: a value that has been replaced may still stand in a log.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from collections.abc import Iterable
from urllib.parse import quote

STARS = "***"
LONGEST_CHARS = 3 * 4096  # of any form in which a known value is found: every character percent-encoded
_SHORTEST = 8  # characters; a shorter value is hardly a secret, and would be starred out of ordinary words
_LOOKALIKE = re.compile(
    r"hf_[A-Za-z0-9]{20,}|(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}|mis_[0-9]+_[A-Za-z0-9_-]+"
    r"|(?P<scheme>\b(?i:Bearer)[ \t]+)[A-Za-z0-9._~+/=-]{8,}"
)


class Redactor:
    """``know()`` values, then ``hide()`` them. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._forms: frozenset[str] = frozenset()
        self._known: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def know(self, values: Iterable[str]) -> None:
        """From now on these are hidden: as they are, and as JSON and URLs write them."""
        new = {form for value in values if len(value) >= _SHORTEST for form in _forms(value)}
        with self._lock:
            if new <= self._forms:
                return
            self._forms |= new
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def hide_known(self, text: str) -> str:
        """``text`` without the values that are known; what merely looks like a secret may be somebody's data."""
        return self._known.sub(STARS, text) if self._known else text

    def hide(self, text: str) -> str:
        """``text`` without known values and without whatever looks like a secret."""
        return _LOOKALIKE.sub(lambda found: (found["scheme"] or "") + STARS, self.hide_known(text))

    def settled(self, hidden: str) -> int:
        """How many characters of ``hidden`` cannot become part of a secret, whatever comes after them."""
        word = max(hidden.rfind(blank) for blank in " \t\r\n") + 1
        begun = min((len(hidden) - _overlap(hidden, form) for form in self._forms), default=len(hidden))
        return max(min(word, begun), len(hidden) - LONGEST_CHARS)


def _forms(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], quote(value, safe=""), quote(value)}


def _overlap(text: str, secret: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``secret``, which it does not hold whole."""
    at = max(0, len(text) - len(secret) + 1)
    while (at := text.find(secret[0], at)) >= 0:
        if secret.startswith(text[at:]):
            return len(text) - at
        at += 1
    return 0


class Filter(logging.Filter):
    """For a handler: a record's message, its traceback and its stack without secrets. It lets every record pass."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redactor.hide(_message(record)), None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_info = None  # or a formatter would write the traceback anew
        record.exc_text = record.exc_text and self._redactor.hide(record.exc_text)
        record.stack_info = record.stack_info and self._redactor.hide(record.stack_info)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        # Logging itself would write the arguments to stderr, secrets and all.
        return f"{record.msg} (its arguments do not fit: {type(error).__name__})"


PROCESS = Redactor()  # what this process knows: the daemon every secret, a worker what it was handed
