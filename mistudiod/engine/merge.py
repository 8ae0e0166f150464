"""Shards → every place where each feature fires, feature after feature, and what all of these places say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.evidence import Asked, Evidence
from mistudiod.engine.mapped import Mapped
from mistudiod.engine.shards import Entries, Shards

TILE_ENTRIES, TILE_FEATURES = 2 << 20, 1 << 10  # in memory at once
OF_A_SHARD, MOST_ENTRIES = 4 << 10, 16 << 20  # entries of a tile: of each of many shards so many, all together
PLACES, VALUES, INDEX = "postings.tok", "postings.val", "postings.idx"
SUMMARY = "summary.bin"

Heard = Callable[[int], None]  # is told how many features are done


def merge(
    shards: Shards,
    asked: Asked,
    tokens: Mapped,
    vocabulary: int,
    for_labels: NDArray[np.bool_],
    postings: Path,
    summaries: Path,
    heard: Heard,
    most: int | None = None,
) -> None:
    """Write ``postings.*`` into one folder and ``summary.bin`` (Asked.summary of each feature) into the other.

    tokens: the ids of all places; vocabulary: how many ids there are; for_labels: see ``Evidence``; most: entries in
    memory, by default ``tile_entries``.
    """
    fired, most = shards.fired(), most or tile_entries(len(shards.whole))
    np.concatenate([[0], fired.cumsum()]).astype("<u8").tofile(postings / INDEX)
    with (postings / PLACES).open("wb") as to, (postings / VALUES).open("wb") as to_values, \
            (summaries / SUMMARY).open("wb") as to_summaries:  # fmt: skip
        for first, last in tiles(fired, most):
            heard(first)
            found = np.zeros(last - first, asked.summary())
            seen = [Evidence(asked, tokens.array, vocabulary, for_labels) for _ in range(first, last)]
            for entries in _pieces(shards, first, last, fired, most):
                _write(entries, to, to_values)
                for n, one in enumerate(seen):
                    part = slice(entries.edges[n], entries.edges[n + 1])
                    one.add(entries.places[part], entries.values[part])
                tokens.forget()
                heard(first)
            for n, one in enumerate(seen):
                one.write(first + n, found[n])
            to_summaries.write(found.tobytes())
    heard(shards.d_sae)


def tile_entries(shards: int) -> int:
    """Entries in memory at once: of many shards more, so that each is not read in crumbs."""
    return min(max(TILE_ENTRIES, OF_A_SHARD * shards), MOST_ENTRIES)


def tiles(fired: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Features [first, last), a few at a time, that have up to ``most`` entries together; one alone may have more."""
    ends, first = fired.cumsum(), 0
    while first < len(fired):
        before = ends[first - 1] if first else 0
        last = max(first + 1, min(first + TILE_FEATURES, int(np.searchsorted(ends, before + most, side="right"))))
        yield first, last
        first = last


def _pieces(shards: Shards, first: int, last: int, fired: NDArray[np.int64], most: int) -> Iterator[Entries]:
    """The entries of a tile: all at once, or of a feature that has more than ``most``, shard after shard."""
    if last - first == 1 and fired[first] > most:
        yield from shards.of(first, last)
        return
    edges = np.concatenate([[0], fired[first:last].cumsum()])
    free, n = edges[:-1].copy(), int(edges[-1])  # free: where the next entry of each feature belongs
    places, values = np.empty(n, np.uint32), np.empty(n, np.float32)
    for part in shards.of(first, last):
        counts = np.diff(part.edges)
        at = np.repeat(free - part.edges[:-1], counts) + np.arange(len(part.places))
        places[at], values[at] = part.places, part.values
        free += counts
    yield Entries(edges, places, values)


def _write(entries: Entries, places: BinaryIO, values: BinaryIO) -> None:
    places.write(entries.places.data)
    values.write(entries.values.data)
