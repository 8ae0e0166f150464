"""Histograms of activations in a few lines of block characters."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"
_HEIGHT = 3  # lines
_WIDE = 2  # cells of a bar, where there is room
_ROOM = 78


def drawn(counts: Sequence[int], edges: Sequence[float], room: int | None = None) -> list[str]:
    """Bars from the first bin that has any to the last, then the powers of two among the edges.

    ``edges`` has one more than ``counts``. Whatever is not nothing is seen. Nothing is drawn when there is nothing.
    """
    filled = [n for n, count in enumerate(counts) if count]
    if not filled:
        return []
    begin, end = filled[0], filled[-1] + 1
    begin -= begin % 2  # edges are powers of two and what lies between: an axis begins with one that has a short name
    wide = _WIDE if (end - begin) * _WIDE <= (room or _ROOM) else 1
    most = max(counts)
    eighths = [-(-8 * _HEIGHT * count // most) for count in counts[begin:end]]
    bars = ["".join(_BLOCKS[max(0, min(8, n - 8 * row))] * wide for n in eighths) for row in reversed(range(_HEIGHT))]
    return [*(bar.rstrip() for bar in bars), "▔" * ((end - begin) * wide), _axis(edges[begin : end + 1], wide)]


def _axis(edges: Sequence[float], wide: int) -> str:
    line = ""
    for n in range(0, len(edges), 2):
        if not line or len(line) < n * wide:
            line = line.ljust(n * wide) + f"{edges[n]:.3g}"
    return line
