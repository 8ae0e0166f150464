"""A text that was read: each token in the colour of the feature that is strongest on it, and which features fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mistudio import human
from mistudio.examples import shade
from mistudio.grids import HEAD, grid
from mistudio.output import Canvas, Line
from mistudio.visible import cut, quoted, visible

Result = Mapping[str, Any]
MOST = 20  # of the features of the text as a whole
_TOKEN_CELLS = 24


def lines(result: Result, labels: Mapping[int, str], canvas: Canvas) -> Iterator[Line]:
    """``labels`` by the index of their features."""
    tokens, pooled = result["tokens"], result["pooled"]
    if canvas.colours:
        yield from _text(tokens)
        yield []
    rows = [
        [
            str(one["index"]), human.number(one["max"], 2), human.count(one["tokens"]),
            cut(quoted(tokens[one["peak"]]["text"]), _TOKEN_CELLS), visible(labels.get(one["index"], "")),
        ]
        for one in pooled[:MOST]
    ]  # fmt: skip
    yield from grid(["FEATURE", "STRONGEST", "TOKENS", "ON", "LABEL"], rows, canvas, "rrrll")
    yield []
    yield [("TOKEN BY TOKEN", HEAD), ("  feature (activation), the strongest first", "dim")]
    by_token = [[cut(quoted(one["text"]), _TOKEN_CELLS), "  ".join(map(_fires, one["features"]))] for one in tokens]
    yield from list(grid(["", ""], by_token, canvas))[1:]


def _fires(one: Mapping[str, Any]) -> str:
    return f"{one['index']} ({human.number(one['value'], 2)})"


def _text(tokens: list[Mapping[str, Any]]) -> Iterator[Line]:
    """A line where the text has one."""
    strongest = [max((feature["value"] for feature in one["features"]), default=0.0) for one in tokens]
    top = max((value for one, value in zip(tokens, strongest, strict=True) if not one["special"]), default=0.0)
    line: list[tuple[str, str]] = []
    for one, value in zip(tokens, strongest, strict=True):
        for n, piece in enumerate(visible(one["text"]).split("↵")):
            if n:
                yield [*line, ("↵", "dim")]
                line = []
            line.append((piece, "dim" if one["special"] else shade(value, top)))
    if any(text for text, _ in line):
        yield line
