"""Which document each held-out token is of, and how much a figure owes to which documents there were: its interval.

Tokens of a document are alike, so an interval over tokens would be far too narrow. Here whole documents are drawn with
replacement, as many as there are, 1,000 times; a figure is worked out anew for each draw from sums by document, and the
middle 95 % of what comes out are its interval (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter
13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mistudiod.engine.harvest import Windows

LEAST_UNITS = 10  # of fewer, the draws say little of what other documents would do
MOST_UNITS, MOST_BYTES = 4_096, 64 << 20  # of more documents, neighbours are taken together
RESAMPLES, LEVEL = 1_000, 0.95
_RUN_DOCUMENTS = 4  # in a run of windows whose documents run on without a mark between them
_ROWS = 1_024  # windows that are read at once

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Figure = Callable[[Floats], Floats]  # weights of units (draws, units) → the figure of each draw (draws,)


class Documents:
    """Numbers from 0 to ``units`` - 1 for the documents of some held-out windows.

    ``held_out``: all held-out windows, which are looked through, so that a document has its true bounds where few
    windows are chosen; ``chosen``: those that are measured on; ``manifest``: what tokenization.json says. Of more than
    ``most`` documents, neighbours are taken together: ``documents`` says how many there are.

    ``unit`` is document where documents can be told from each other: by the separator between them or, padded, by the
    padding after them. A separator that stands in a text parts it; a padded document that fills its last window to the
    end is taken together with the next one, unless windows overlap and the overlap tells. Where documents run on
    without a separator, ``unit`` is run: of windows that hold about four documents.
    """

    def __init__(
        self,
        windows: Windows,
        held_out: range,
        chosen: NDArray[np.integer],
        manifest: Mapping[str, Any],
        most: int = MOST_UNITS,
    ) -> None:
        policy = manifest["policy"]
        self.context, self._windows, self._start = windows.context, windows, held_out.start
        self._lead, self._separator = int(policy["bos"] is not None), policy["separator"]
        self.unit = "run" if policy["packed"] and self._separator is None else "document"
        if self.unit == "run":
            self._separator = None
            text = _RUN_DOCUMENTS * float(manifest.get("mean_document_tokens", windows.context))
            self._first = np.arange(len(held_out)) // max(1, round(text / (windows.context - self._lead)))
        elif policy["packed"]:
            self._first = self._by_separator(held_out)
        else:
            self._separator = None
            self._first = self._by_padding(held_out, int(policy["padding"]), int(policy.get("stride") or 0))
        found = [np.empty(0, dtype=np.int64)]
        for some in _parts(np.asarray(chosen)):
            rows = windows.rows(some)
            found.append(np.unique(self._numbers(some, rows)[~windows.special_mask(rows)]))
        self._known = np.unique(np.concatenate(found))
        self.documents = len(self._known)
        self._last = max(self.documents - 1, 0)
        self.units = min(self.documents, max(1, most))

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Of chosen windows (n,) the unit of each token: (n, context); what stands at a special token says nothing."""
        indices = np.asarray(indices, dtype=np.int64)
        numbers = self._numbers(indices, self._windows.rows(indices))
        rank: NDArray[np.int64] = np.searchsorted(self._known, numbers).clip(0, self._last)
        return rank * self.units // (self._last + 1)

    def _numbers(self, indices: NDArray[np.integer], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        first = self._first[indices - self._start][:, None]
        if self._separator is None:
            return np.broadcast_to(first, rows.shape)
        apart = rows == self._separator
        apart[:, : self._lead] = False  # a BOS may be the very token that separates
        return first + np.cumsum(apart, axis=1)

    def _by_separator(self, held_out: range) -> NDArray[np.int64]:
        """How many separators are in front of each held-out window."""
        counts = [
            (self._windows.rows(some)[:, self._lead :] == self._separator).sum(1)
            for some in _parts(np.arange(held_out.start, held_out.stop))
        ]
        inside = np.concatenate([np.zeros(1, dtype=np.int64), *counts])
        return np.cumsum(inside)[:-1]

    def _by_padding(self, held_out: range, filler: int, stride: int) -> NDArray[np.int64]:
        """How many documents have surely ended in front of each held-out window."""
        ended, before = [], np.empty((0, self.context), dtype=np.int64)
        for some in _parts(np.arange(held_out.start, held_out.stop)):
            rows = np.concatenate([before, self._windows.rows(some)])
            one, next_one = rows[:-1], rows[1:]
            ends = one[:, -1] == filler
            if stride:  # a window begins with the end of the one before, when that is of the same document
                ends |= (one[:, -stride:] != next_one[:, self._lead : self._lead + stride]).any(1)
            ended.append(ends)
            before = rows[-1:]
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(ended))])[: len(held_out)]


def most_units(width: int) -> int:
    """How many units have sums of vectors ``width`` wide in MOST_BYTES."""
    return max(LEAST_UNITS, min(MOST_UNITS, MOST_BYTES // (8 * width)))


def _parts(indices: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    return [indices[start : start + _ROWS] for start in range(0, len(indices), _ROWS)]


@dataclass(frozen=True)
class Explained:
    """Of what is to be rebuilt, and of what is left of it, by document: (units,) float64 each, sums over tokens.

    ``about`` and ``squares`` are of y - shift, with one shift for all: from them the variance about the mean of any
    draw is exact.
    """

    tokens: Floats
    squares: Floats  # ||y - shift||^2
    about: Floats  # y - shift: (units, d_out)
    lost: Floats  # ||y - y_hat||^2

    def fvu(self, weights: Floats) -> Floats:
        """About the mean of each draw."""
        total = weights @ self.squares - np.square(weights @ self.about).sum(1) / (weights @ self.tokens)
        return divided(weights @ self.lost, total)


@dataclass(frozen=True)
class Sums(Explained):
    """What an SAE makes of a text, by document."""

    cosine: Floats  # of y and y_hat
    l2_ratio: Floats  # ||y_hat|| / ||y||
    rebuilt: Floats  # ||y_hat||^2
    products: Floats  # <y, y_hat>
    l0: Floats
    l1: Floats

    def figures(self) -> dict[str, Figure]:
        """What ``measure.Measures`` has, of any draw."""
        means = {name: ratio(getattr(self, name), self.tokens) for name in ("l0", "l1", "cosine", "l2_ratio")}
        return {"fvu": self.fvu, **means, "bias": ratio(self.rebuilt, self.products)}


@dataclass(frozen=True)
class LossSums:
    """What the language model loses, by document: (units,) float64 each, nats summed over the tokens that count."""

    tokens: Floats
    clean: Floats
    spliced: Floats
    kl: Floats
    zero: Floats
    mean: Floats

    def figures(self) -> dict[str, Figure]:
        """What ``splice.Loss.figures`` has, and what the ablations cost, of any draw."""
        return {
            "ce_zero": ratio(self.zero - self.clean, self.tokens),
            "ce_mean": ratio(self.mean - self.clean, self.tokens),
            "ce_clean": ratio(self.clean, self.tokens),
            "ce_delta": ratio(self.spliced - self.clean, self.tokens),
            "ce_recovered_zero": ratio(self.zero - self.spliced, self.zero - self.clean),
            "ce_recovered_mean": ratio(self.mean - self.spliced, self.mean - self.clean),
            "kl": ratio(self.kl, self.tokens),
        }


def ratio(top: Floats, bottom: Floats) -> Figure:
    """The sum of one over the sum of the other, both (units,)."""
    return lambda weights: divided(weights @ top, weights @ bottom)


def divided(top: Floats, bottom: Floats) -> Floats:
    """NaN where there is nothing above 0 to divide by."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


class Bootstrap:
    """1,000 draws of ``units`` documents with replacement, the same for every figure, and for every SAE on a text.

    No interval for whether a latent fires at all (alive, dead): a draw holds about 63 % of the documents, so it misses
    rare latents that the text has, and the interval would lie below the figure.
    """

    def __init__(self, units: int, seed: int = 0) -> None:
        self.units = units
        even = np.full(units, 1 / max(units, 1))
        drawn = np.random.default_rng(seed).multinomial(units, even, size=RESAMPLES) if units else np.empty((0, 0))
        self.drawn: NDArray[np.integer] = drawn.astype(np.uint16)  # (draws, units): how often each document

    def value(self, figure: Figure) -> float:
        """Of the text itself."""
        return float(figure(np.ones((1, self.units)))[0])

    def interval(self, figure: Figure) -> Interval | None:
        """Of 95 %; None with fewer than LEAST_UNITS documents, or where a draw has no such figure."""
        if self.units < LEAST_UNITS:
            return None
        found = np.concatenate([figure(some.astype(np.float64)) for some in _parts(self.drawn)])
        if not np.isfinite(found).all():
            return None
        low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


def difference(one: Figure, other: Figure) -> Figure:
    """Of two SAEs on the same documents: of each draw the figure of one less that of the other."""
    return lambda weights: one(weights) - other(weights)


def without_empty(*sums: Explained | LossSums) -> list[Any]:
    """The same, less the documents of which no token counts in any of them: an empty one would be drawn in vain.

    The very same where all count, not a copy.
    """
    counts = np.logical_or.reduce([each.tokens > 0 for each in sums])
    if counts.all():
        return list(sums)
    return [type(each)(**{one.name: getattr(each, one.name)[counts] for one in fields(each)}) for each in sums]
