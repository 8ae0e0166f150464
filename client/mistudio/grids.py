"""Columns of a painted page: as wide as what stands in them, the last cut where the terminal ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mistudio.examples import first
from mistudio.output import Canvas, Line
from mistudio.visible import padded, width

HEAD = "bold"
_GAP = "   "


def grid(header: Sequence[str], rows: Iterable[Sequence[str]], canvas: Canvas, right: str = "") -> Iterator[Line]:
    """``right`` has an "r" for each column of numbers, which end below each other, and an "l" for every other."""
    lines = [list(header), *map(list, rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(header))]
    sides = right or "l" * len(header)
    for n, line in enumerate(lines):
        cells = [
            " " * (wide - width(cell)) + cell if side == "r" else padded(cell, wide)
            for cell, wide, side in zip(line, widths, sides, strict=True)
        ]
        text = _GAP.join(cells).rstrip()
        yield fitted([(text, "" if n else HEAD)], canvas)


def fitted(line: Line, canvas: Canvas) -> Line:
    return list(line) if canvas.width is None else first(list(line), canvas.width)
