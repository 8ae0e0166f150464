"""Tokens of a text that is being written, as text: whole characters, no special tokens, and nothing from a stop on."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

_decoder = codecs.getincrementaldecoder("utf-8")


class Spelling:
    """One text. ``texts``: the bytes of every token. ``stops``: strings before whose first the text ends."""

    def __init__(self, texts: Sequence[bytes], stops: Sequence[str] = ()) -> None:
        self._texts, self._stops = texts, stops
        self._decoder = _decoder(errors="replace")
        self._held = ""  # may be the beginning of a stop
        self.stopped = False

    def add(self, token: int) -> str:
        """What is certain to be text now that ``token`` has come."""
        return self._shown(self._decoder.decode(self._texts[token]))

    def end(self) -> str:
        """What was held back, now that no token comes any more."""
        shown = self._shown(self._decoder.decode(b"", final=True)) + ("" if self.stopped else self._held)
        self._held = ""
        return shown

    def _shown(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        kept = max((_begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[len(text) - n :])), 0)
