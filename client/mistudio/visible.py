"""Foreign text (of datasets, models, people) as a terminal may show it: nothing in it steers, nothing in it hides."""

from __future__ import annotations

import re
import unicodedata

# Steers a terminal, or turns the order of what it shows around (Unicode, Bidi_Control), or is no character at all.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # Unicode's general categories of what leaves nothing to see
_BESIDE = frozenset(("Mn", "Me"))  # of what is drawn on the character before
_SHOWN = {"\n": "↵", "\t": "→"}
CUT = "…"


def escaped(text: str) -> str:
    """Line ends and tabs stay, and so do the joiners that some scripts are written with."""
    return _CONTROL.sub(lambda found: _code(found[0]), text)


def escaped_json(document: str) -> str:
    """The same value, written so that it steers no terminal."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def visible(text: str) -> str:
    """On one line and with nothing left unseen: ``↵`` for a line end, ``→`` for a tab, ``\\u200b`` for what hides."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _SHOWN.get(c) or (_code(c) if unicodedata.category(c) in _HIDDEN else c) for c in text.replace("\r\n", "\n")
    )


def quoted(text: str) -> str:
    """A token, with the spaces around it."""
    return f"'{visible(text)}'"


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()


def width(text: str) -> int:
    """How many cells of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in _BESIDE:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def padded(text: str, cells: int) -> str:
    return text + " " * (cells - width(text))


def cut(text: str, cells: int) -> str:
    """Its beginning, in so many cells at most."""
    return text if width(text) <= cells else within(text, cells - 1) + CUT


def cut_before(text: str, cells: int) -> str:
    """Its end, in so many cells at most."""
    return text if width(text) <= cells else CUT + within(text[::-1], cells - 1)[::-1]


def within(text: str, cells: int) -> str:
    """As much of its beginning as fits; ``cut`` says so when that is not all."""
    for n, character in enumerate(text):
        cells -= _cells(character)
        if cells < 0:
            return text[:n]
    return text
