"""Where features fire in the text that was read, one or two of them, out of a store's postings. Standard library."""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from mistudiod.facts.headers import read_header
from mistudiod.pages import Pages

AROUND = 16  # tokens of text before and after a place
SHARED = 10  # places shown of two features
_Met = tuple[float, int, float, float]  # strength of the weaker, -place, activations of the rarer and of the other


def occurrences(
    pages: Pages, index: int, above: float, begin: int, limit: int, total: int | None = None
) -> dict[str, Any]:
    """The places where a feature has an activation of ``above`` or more, in the order of the text: ``total``, so many
    of them from the ``begin``-th posting on, and with what to begin ``next``. Raises ValueError without postings.

    ``total``: when it has been counted already; that reads all postings.
    """
    places, values = pages.postings(index)
    if total is None:
        total = sum(value >= above for value in values) if above > 0 else len(values)
    strong = (n for n, value in enumerate(values[begin:], begin) if value >= above)
    chosen = list(islice(strong, limit + 1))
    following = chosen[limit] if len(chosen) > limit else None
    found = [{**_place(pages, places[n]), "value": values[n]} for n in chosen[:limit]]
    return {"occurrences": found, "total": total, "next": following}


def whole_window(pages: Pages, index: int, row: int) -> dict[str, Any]:
    """All tokens of a window, and how strongly a feature fires on each; ``activations`` is None without postings."""
    ids = pages.ids(row)
    activations: list[float] | None = None
    if pages.manifest["postings"]:
        places, values = pages.postings(index)
        begin = row * pages.context
        activations = [0.0] * len(ids)
        for n in range(bisect_left(places, begin), bisect_left(places, begin + pages.context)):
            activations[places[n] - begin] = values[n]
    return {"row": row, "window": pages.window(row), "texts": pages.texts(ids), "activations": activations}


def together(pages: Pages, a: int, b: int) -> dict[str, Any]:
    """On how many tokens two features both fire, and the windows in which the weaker of them is strongest by its own
    measure, with the activations of both; ``both``, ``jaccard`` and ``shared`` are None without postings.
    """
    if not pages.manifest["postings"]:
        return {"both": None, "jaccard": None, "shared": None}
    order = sorted((a, b), key=lambda index: len(pages.postings(index)[0]))
    few, many = (pages.postings(index)[0] for index in order)
    both = 0
    best: list[_Met] = []  # a heap: the weakest first
    for _, met in groupby(_meetings(pages, *order), key=lambda one: -one[1] // pages.context):
        here = list(met)  # in one window
        both += len(here)
        heappush(best, max(here))
        if len(best) > SHARED:
            heappop(best)
    either = len(few) + len(many) - both
    names = ("a", "b") if order == [a, b] else ("b", "a")
    return {
        "both": both,
        "jaccard": both / either if either else 0.0,
        "shared": [
            {**_place(pages, -place), **dict(zip(names, values, strict=True))}
            for _, place, *values in sorted(best, reverse=True)
        ],
    }


def _meetings(pages: Pages, few: int, many: int) -> Iterator[_Met]:
    """Where two features both fire, in the order of the text."""
    tops = [pages.columns["max"][index] or 1.0 for index in (few, many)]
    (few_places, few_values), (places, values) = pages.postings(few), pages.postings(many)
    at = 0
    for place, one in zip(few_places, few_values, strict=True):
        at = bisect_left(places, place, at)
        if at == len(places):
            return
        if places[at] == place:
            yield min(one / tops[0], values[at] / tops[1]), -place, one, values[at]


def _place(pages: Pages, place: int) -> dict[str, Any]:
    row, position = divmod(place, pages.context)
    first = max(0, position - AROUND)
    ids = pages.ids(row)[first : position + AROUND + 1]
    return {
        "row": row,
        "window": pages.window(row),
        "position": position,
        "texts": pages.texts(ids),
        "peak": position - first,
    }


def cosine(weights: Path, a: int, b: int) -> float | None:
    """Of two rows of W_dec in a safetensors file; None when it has no such float32 rows, or one is zero.

    Raises OSError, UnknownModel when the file cannot be read.
    """
    stored = read_header(weights).get("W_dec")
    if stored is None or stored.dtype != "F32" or len(stored.shape) != 2 or max(a, b) >= stored.shape[0]:
        return None
    width = stored.shape[1]
    with weights.open("rb") as file:
        rows = []
        for index in (a, b):
            file.seek(stored.start + index * width * 4)
            rows.append(struct.unpack(f"<{width}f", file.read(width * 4)))
    one, other = rows
    size = math.sqrt(_dot(one, one) * _dot(other, other))
    return max(-1.0, min(1.0, _dot(one, other) / size)) if 0 < size < math.inf else None


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
