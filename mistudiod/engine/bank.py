"""The tokens of a text that is extracted from: ids on disk, how often each counts, and where, for some of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.harvest import Windows

TOKENS, WINDOWS, COUNTS = "tokens.bin", "windows.bin", "counts.bin"
KEPT = 64  # places of each id, spread over the text
PIECE_ROWS = 4_096  # taken at once


class Bank:
    """``tokens``: the id at each place, row x context + position (mapped). ``read`` (vocabulary,): on how many places
    that count each id lies, ``read_for_labels`` in windows that labels may be made from; ``places(id)``: up to KEPT of
    them, ascending.
    """

    def __init__(
        self, tokens: NDArray[Any], counts: NDArray[np.uint32], vocabulary: int, for_labels: NDArray[np.bool_]
    ) -> None:
        """counts: as ``counts.bin`` has it (see ``shards``), 0 where a place does not count. for_labels: (rows,)."""
        self.tokens, self.vocabulary = tokens, vocabulary
        self.read, self.read_for_labels = np.zeros((2, vocabulary), np.int64)
        context = len(tokens) // max(len(for_labels), 1)
        for places, ids in _pieces(tokens, counts):
            self.read += np.bincount(ids, minlength=vocabulary)
            self.read_for_labels += np.bincount(ids[for_labels[places // context]], minlength=vocabulary)
        kept = np.minimum(self.read, KEPT)
        self._starts = np.concatenate([[0], kept.cumsum()])
        self._places = np.empty(self._starts[-1], np.uint32)
        self._keep(counts)

    def places(self, token: int) -> NDArray[np.uint32]:
        return self._places[self._starts[token] : self._starts[token + 1]]

    def _keep(self, counts: NDArray[np.uint32]) -> None:
        """Of n places of an id the i-th is kept where i KEPT // n is another than that of the one before it."""
        seen = np.zeros(self.vocabulary, np.int64)
        for places, ids in _pieces(self.tokens, counts):
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
    tokens: NDArray[Any], counts: NDArray[np.uint32], size: int = 1 << 18
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """Places that count, and the ids there, some at a time."""
    for start in range(0, len(tokens), size):
        at = np.flatnonzero(counts[start : start + size])
        yield (at + start).astype(np.uint32), tokens[start : start + size][at].astype(np.int64)


def write_tokens(windows: Windows, numbers: NDArray[np.int64], dtype: np.dtype[Any], folder: Path) -> None:
    """``tokens.bin``: the ids of the windows, in their order; ``windows.bin`` (u32): their numbers."""
    with (folder / TOKENS).open("wb") as file:
        for start in range(0, len(numbers), PIECE_ROWS):
            file.write(windows.rows(numbers[start : start + PIECE_ROWS]).astype(dtype).tobytes())
    (folder / WINDOWS).write_bytes(numbers.astype("<u4").tobytes())
