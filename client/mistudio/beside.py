"""Two texts beside each other, or one below the other, and the words in which they differ."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from mistudio.output import Line
from mistudio.visible import visible, width, within

Part = tuple[str, str]
WIDE = 100  # cells of a terminal from which on there are two columns
MARK = "bold underline"
_BETWEEN = " │ "
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def plain(text: str) -> list[Part]:
    return [(word, "") for word in _WORD.findall(text)]


def marked(text: str, other: str) -> list[Part]:
    """The words of a text and the spaces between them; those that the other text does not have there are marked."""
    from difflib import SequenceMatcher

    parts = _WORD.findall(text)
    words = [n for n, part in enumerate(parts) if not part.isspace()]
    theirs = [part for part in _WORD.findall(other) if not part.isspace()]
    pairs = SequenceMatcher(None, [parts[n] for n in words], theirs, autojunk=False).get_matching_blocks()
    same = {words[i] for block in pairs for i in range(block.a, block.a + block.size)}
    return [(part, "" if part.isspace() or n in same else MARK) for n, part in enumerate(parts)]


def wrapped(parts: Sequence[Part], cells: int | None) -> list[Line]:
    """Lines of at most so many cells, broken where the text is and between words; with nothing left unseen."""
    lines: list[list[Part]] = [[]]
    room = cells
    for text, style in parts:
        for n, piece in enumerate(text.replace("\r\n", "\n").split("\n")):
            if n:
                lines.append([])
                room = cells
            shown = visible(piece)
            if cells is None or room is None:
                lines[-1].append((shown, style))
                continue
            if width(shown) > room and lines[-1]:
                lines.append([])
                room = cells
                if piece.isspace():
                    continue  # the break stands for it
            while width(shown) > room:
                begin = within(shown, room) or shown[0]
                lines[-1].append((begin, style))
                lines.append([])
                shown, room = shown[len(begin) :], cells
            lines[-1].append((shown, style))
            room -= width(shown)
    return [_bare(line) for line in lines]


def _bare(line: Sequence[Part]) -> Line:
    """In as few parts as there are styles beside each other."""
    return [
        ("".join(text for text, _ in parts), style)
        for style, parts in itertools.groupby(line, key=lambda part: part[1])
    ]


def half(cells: int) -> int:
    """How wide each of two columns is."""
    return (cells - len(_BETWEEN)) // 2


def columns(left: Sequence[Line], right: Sequence[Line], cells: int) -> Iterator[Line]:
    """Lines of at most ``cells`` each, beside each other."""
    for one, other in itertools.zip_longest(left, right, fillvalue=()):
        space = cells - sum(width(text) for text, _ in one)
        yield [*one, (" " * space, ""), (_BETWEEN, "dim"), *other]


def indented(lines: Sequence[Line]) -> Iterator[Line]:
    for line in lines:
        yield [("    ", ""), *line] if line else []
