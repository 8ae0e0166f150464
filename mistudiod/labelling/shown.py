"""Text of a dataset as prompts and labels show it: one line, nothing invisible, no mark that is not ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import groupby

OPEN, CLOSE = "<<", ">>"  # around tokens on which a feature fires
_BLANKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_LIKE_MARKS = str.maketrans("<>", "‹›")


def visible(text: str) -> str:
    """Line breaks as ↵, tabs as ⇥, and what else cannot be seen (control and bidi characters, odd spaces) by its
    number. Spaces stay, except in a text that is nothing but white space: there they are ␣.
    """
    shown = "".join(_BLANKS.get(char) or (char if char.isprintable() else _number(char)) for char in text)
    return shown if text.strip() else shown.replace(" ", "␣")


def escape(text: str) -> str:
    """``visible``, and two or more < or > in a row as ‹ and ›: no text can hold a mark."""
    return re.sub(r"<{2,}|>{2,}", _unlike_marks, visible(text))


def marked(texts: Sequence[str], fires: Collection[int]) -> str:
    """Tokens in one line, those at the places ``fires`` in marks, neighbouring ones in one.

    A < or > next to a mark becomes ‹ or ›, too. A token whose character comes with a later token is marked with that.
    """
    places = set(fires)
    for place, text in enumerate(texts[:-1]):
        if place in places and not text:
            places.add(place + 1)
    runs = [list(run) for _, run in groupby(range(len(texts)), lambda place: place in places)]
    shown = ""
    for number, run in enumerate(runs):
        part, fired = escape("".join(texts[place] for place in run)), run[0] in places
        if fired or number > 0:
            part = re.sub(r"^[<>]+", _unlike_marks, part)
        if fired or number < len(runs) - 1:
            part = re.sub(r"[<>]+$", _unlike_marks, part)
        shown += f"{OPEN}{part}{CLOSE}" if fired else part
    return shown


def quoted(text: str) -> str:
    """A token between quotes, so that its spaces are seen."""
    return '"' + visible(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _unlike_marks(found: re.Match[str]) -> str:
    return found[0].translate(_LIKE_MARKS)


def _number(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
