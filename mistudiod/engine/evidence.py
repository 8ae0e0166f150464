"""What all entries of one feature say: counts and sums, the windows to show, the tokens on which it fires most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.feature_record import BAND, RANDOM, TOP
from mistudiod.pages import BINS

BANDS, OF_A_BAND = 5, 2
RANDOMS = 6
TOKENS = 10  # on which a feature fires most
FIRST_BIN = 222  # the leading bits of a float32, ``bits >> 22``, in the first bin of pages.EDGES

U32 = NDArray[np.uint32]
F32 = NDArray[np.float32]
Counts = tuple[U32, NDArray[np.int64]]  # ids, ascending, and how often each


@dataclass(frozen=True)
class Asked:
    """``top``: strongest windows of each feature; ``context``: tokens of a window."""

    top: int
    context: int

    @property
    def examples(self) -> int:
        """Windows of a feature, at most."""
        return self.top + BANDS * OF_A_BAND + RANDOMS

    def summary(self) -> np.dtype[Any]:
        """Of what is known of a feature: the first ``tokens_n`` and ``examples_n`` of the arrays count."""
        return np.dtype([
            ("fired", "u8"), ("total", "f8"), ("squares", "f8"), ("maximum", "f4"), ("histogram", "u4", BINS),
            ("tokens_n", "u4"), ("tokens", "u4", TOKENS), ("tokens_fired", "u4", TOKENS),
            ("label_fired", "u8"), ("label_n", "u4"), ("label_tokens", "u4", TOKENS),
            ("label_tokens_fired", "u4", TOKENS),
            ("examples_n", "u4"), ("kinds", "u1", self.examples), ("bands", "u1", self.examples),
            ("peaks", "u4", self.examples), ("values", "f4", self.examples),
        ])  # fmt: skip


class Runs:
    """Windows in which a feature fires: ``rows``, where it is strongest in each (first of equals), and how strong."""

    def __init__(self, places: U32, values: F32, context: int) -> None:
        """places (n,), n > 0, ascending."""
        rows = places // np.uint32(context)
        starts = np.concatenate([[0], np.flatnonzero(rows[1:] != rows[:-1]) + 1])
        self.rows, self.values = rows[starts], np.maximum.reduceat(values, starts)
        at = np.flatnonzero(values == np.repeat(self.values, np.diff(starts, append=len(rows))))
        of = rows[at]
        self.peaks = places[at[np.concatenate([[True], of[1:] != of[:-1]])]]


class Evidence:
    """Takes in the entries of a feature, in order of the text; ``tokens`` are the ids of all places.

    ``for_labels`` (rows,): windows that labels may be made from; of the others labels must know nothing.
    """

    def __init__(self, asked: Asked, tokens: NDArray[Any], vocabulary: int, for_labels: NDArray[np.bool_]) -> None:
        self._asked, self._tokens, self._vocabulary, self._for_labels = asked, tokens, vocabulary, for_labels
        self._fired, self._total, self._squares = 0, 0.0, 0.0
        self._histogram = np.zeros(BINS, np.int64)
        self._windows: list[tuple[U32, F32]] = []  # peaks and maxima
        self._counts: Counts | None = None
        self._of_labels: Counts | None = None

    def add(self, places: U32, values: F32) -> None:
        if not len(places):
            return
        wide = values.astype(np.float64)
        self._fired += len(values)
        self._total += float(wide.sum())
        self._squares += float(np.dot(wide, wide))
        bins = (values.view(np.uint32) >> np.uint32(22)).astype(np.int32) - FIRST_BIN
        self._histogram += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
        runs = Runs(places, values, self._asked.context)
        self._windows.append((runs.peaks, runs.values))  # no more: a dense feature fires in nearly every window
        ids = self._tokens[places]
        self._counts = _counted(ids, self._vocabulary, self._counts)
        self._of_labels = _counted(
            ids[self._for_labels[places // np.uint32(self._asked.context)]], self._vocabulary, self._of_labels
        )

    def write(self, feature: int, summary: Any) -> None:
        """Into one place of an array of ``Asked.summary``, which is zero."""
        if not self._windows or self._counts is None or self._of_labels is None:
            return
        peaks, values = _windows(self._windows, self._asked.context)
        summary["fired"], summary["total"], summary["squares"] = self._fired, self._total, self._squares
        summary["maximum"], summary["histogram"] = values.max(), self._histogram
        summary["label_fired"] = self._of_labels[1].sum()
        for counted, n, name in ((self._counts, "tokens_n", "tokens"), (self._of_labels, "label_n", "label_tokens")):
            most = strongest(counted[1], TOKENS)
            summary[n] = len(most)
            summary[name][: len(most)], summary[f"{name}_fired"][: len(most)] = (one[most] for one in counted)
        chosen, kinds, bands = choose(values, self._asked, feature)
        n = len(chosen)
        summary["examples_n"], summary["kinds"][:n], summary["bands"][:n] = n, kinds, bands
        summary["peaks"][:n], summary["values"][:n] = peaks[chosen], values[chosen]


def strongest(values: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Where the ``most`` largest are, the largest first; of equals the first."""
    where = np.arange(len(values))
    if len(values) > most:
        where = np.flatnonzero(values >= np.partition(values, len(values) - most)[len(values) - most])
    return where[np.argsort(-values[where], kind="stable")[:most]]


def choose(values: F32, asked: Asked, feature: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Windows to show, by their maxima in order of the text: which, their kinds, their bands.

    The strongest; of the others two of each fifth of the maximum, the highest first, spread over the text; of what is
    left then six at random, one of each sixth of the text in which it fires.
    """
    top = strongest(values, asked.top)
    rest = np.ones(len(values), np.bool_)
    rest[top] = False
    left = np.flatnonzero(rest)
    fifth = np.minimum((values[left] / np.float64(values[top[0]]) * BANDS).astype(np.uint8), BANDS - 1)
    picked, bands = [], []
    for band in range(BANDS - 1, -1, -1):
        of = left[fifth == band]
        some = of[[len(of) // 4, 3 * len(of) // 4]] if len(of) >= OF_A_BAND else of
        picked.append(some)
        bands += [band] * len(some)
    banded = np.concatenate(picked)
    rest[banded] = False
    left = np.flatnonzero(rest)
    strata = min(RANDOMS, len(left))
    edges = np.arange(strata + 1) * len(left) // max(strata, 1)
    drawn = np.random.default_rng([0, feature]).random(strata) * np.diff(edges)
    chosen = np.concatenate([top, banded, left[edges[:-1] + drawn.astype(np.int64)]])
    kinds = np.repeat(np.array([TOP, BAND, RANDOM], np.uint8), [len(top), len(banded), strata])
    numbers = np.zeros(len(chosen), np.uint8)
    numbers[len(top) : len(top) + len(banded)] = bands
    return chosen, kinds, numbers


def _windows(parts: list[tuple[U32, F32]], context: int) -> tuple[U32, F32]:
    """Peaks and maxima of the windows in order of the text; one that was cut between two is one again."""
    if len(parts) == 1:
        return parts[0]
    peaks, values = (np.concatenate(some) for some in zip(*parts, strict=True))
    again = Runs(peaks, values, context)
    return again.peaks, again.values


def _counted(ids: NDArray[Any], vocabulary: int, before: Counts | None) -> Counts:
    """The ids that there are and how often each, with those before."""
    if len(ids) > vocabulary:
        counts = np.bincount(ids, minlength=vocabulary)
        there = np.flatnonzero(counts)
        found = there.astype(np.uint32), counts[there]
    else:
        ordered = np.sort(ids)
        starts = np.flatnonzero(np.concatenate([np.ones(min(len(ids), 1), np.bool_), ordered[1:] != ordered[:-1]]))
        found = ordered[starts].astype(np.uint32), np.diff(starts, append=len(ids))
    return found if before is None else _merged(before, found)


def _merged(one: Counts, other: Counts) -> Counts:
    ids = np.union1d(one[0], other[0])
    counts = np.zeros(len(ids), np.int64)
    for some, of in (one, other):
        counts[np.searchsorted(ids, some)] += of
    return ids, counts
