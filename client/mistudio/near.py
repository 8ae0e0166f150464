"""What was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` to end a sentence with, or nothing when nothing is near or it is there."""
    import difflib

    words = list(known)
    near = [] if word in words else difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""
