"""The tokens of a text that is extracted from: ids on disk, how often each counts, and where, for some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.harvest import Windows
from mistudiod.engine.mapped import Mapped

TOKENS, WINDOWS, COUNTS = "tokens.bin", "windows.bin", "counts.bin"
KEPT = 64  # places of each id, spread over the text
PIECE = 1 << 18  # places that are looked at together
WRITTEN = 1 << 20  # tokens that are written together

Heard = Callable[[int], None]  # is told how many places are done


class Bank:
    """``tokens``: the id at each place, row x context + position. ``read`` (vocabulary,): on how many places
    that count each id lies, ``read_for_labels`` in windows that labels may be made from; ``places(id)``: up to KEPT of
    them, ascending.
    """

    def __init__(
        self, tokens: Mapped, counts: Mapped, vocabulary: int, for_labels: NDArray[np.bool_], heard: Heard
    ) -> None:
        """counts: ``counts.bin`` (see ``shards``), 0 where a place does not count. for_labels: (rows,).

        ``heard`` is told of two passes over all places.
        """
        self.tokens, self.vocabulary = tokens, vocabulary
        self.read, self.read_for_labels = np.zeros((2, vocabulary), np.int64)
        context = len(tokens.array) // max(len(for_labels), 1)
        for places, ids in _pieces(tokens, counts, heard, 0):
            self.read += np.bincount(ids, minlength=vocabulary)
            self.read_for_labels += np.bincount(ids[for_labels[places // context]], minlength=vocabulary)
        kept = np.minimum(self.read, KEPT)
        self._starts = np.concatenate([[0], kept.cumsum()])
        self._places = np.empty(self._starts[-1], np.uint32)
        self._keep(counts, heard)

    def places(self, token: int) -> NDArray[np.uint32]:
        return self._places[self._starts[token] : self._starts[token + 1]]

    def _keep(self, counts: Mapped, heard: Heard) -> None:
        """Of n places of an id the i-th is kept where i KEPT // n is another than that of the one before it."""
        seen = np.zeros(self.vocabulary, np.int64)
        for places, ids in _pieces(self.tokens, counts, heard, len(self.tokens.array)):
            order = np.argsort(ids, kind="stable")
            ids = ids[order]
            there, starts, numbers = np.unique(ids, return_index=True, return_counts=True)
            rank = seen[ids] + np.arange(len(ids)) - np.repeat(starts, numbers)
            seen[there] += numbers
            read = np.maximum(self.read[ids], KEPT)
            slot, before = rank * KEPT // read, (rank - 1) * KEPT // read
            taken = slot != before
            self._places[self._starts[ids[taken]] + slot[taken]] = places[order[taken]]


def _pieces(
    tokens: Mapped, counts: Mapped, heard: Heard, before: int
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """Places that count, and the ids there, some at a time; ``before``: places that were heard of already."""
    for start in range(0, len(tokens.array), PIECE):
        at = np.flatnonzero(counts.array[start : start + PIECE])
        yield (at + start).astype(np.uint32), tokens.array[start : start + PIECE][at].astype(np.int64)
        tokens.forget()
        counts.forget()
        heard(before + min(start + PIECE, len(tokens.array)))


def write_tokens(
    windows: Windows, numbers: NDArray[np.int64], dtype: np.dtype[Any], folder: Path, heard: Heard
) -> None:
    """``tokens.bin``: the ids of the windows, in their order; ``windows.bin`` (u32): their numbers."""
    rows = max(1, WRITTEN // windows.context)
    with (folder / TOKENS).open("wb") as file:
        for start in range(0, len(numbers), rows):
            part = numbers[start : start + rows]
            file.write(windows.rows(part).astype(dtype).tobytes())
            heard((start + len(part)) * windows.context)
    (folder / WINDOWS).write_bytes(numbers.astype("<u4").tobytes())
