"""Histograms of a feature as Neuronpedia draws them: the middle of each bar and its height."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mistudiod.pages import Pages

BARS = 50
INTERVALS = 5  # groups of examples, each a fifth of the maximum
Page = Mapping[str, Any]


@dataclass(frozen=True)
class Bars:
    """``shares``: of all tokens, those whose activation lies in each fifth of the maximum; None when not known."""

    values: list[float]
    heights: list[int]
    shares: list[float] | None = None


def of_activations(pages: Pages, page: Page) -> Bars:
    """How strongly a feature fires where it fires; no bars when it is dead.

    With postings 50 bars of equal width from 0 to the maximum, as SAEDashboard has them; without, the store's own, two
    an octave, from the first that is not empty to the last, for what lies within one of them is not known.
    """
    most = page["max"]
    if page["dead"] or most <= 0:
        return Bars([], [])
    if not pages.manifest["postings"]:
        edges, counts = page["histogram"]["edges"], page["histogram"]["counts"]
        some = [n for n, count in enumerate(counts) if count]
        shown = range(min(some, default=0), max(some, default=-1) + 1)
        return Bars([(edges[n] + edges[n + 1]) / 2 for n in shown], [counts[n] for n in shown])
    heights = [0] * BARS
    for value in pages.postings(page["index"])[1]:
        heights[min(BARS - 1, int(value / most * BARS))] += 1
    width, group = most / BARS, BARS // INTERVALS
    counts = [sum(heights[n : n + group]) for n in range(0, BARS, group)]
    counts[0] += pages.tokens - page["fired"]  # where it is silent its activation is 0
    shares = [count / pages.tokens for count in counts]
    return Bars([(n + 0.5) * width for n in range(BARS)], heights, shares)


def of_logits(page: Page) -> Bars:
    """Of what a feature adds to the logits of all tokens; no bars when the store has none."""
    if not page["logits"]:
        return Bars([], [])
    drawn = page["logits"]["histogram"]
    low, counts = drawn["low"], drawn["counts"]
    width = (drawn["high"] - low) / len(counts)
    return Bars([low + (n + 0.5) * width for n in range(len(counts))], list(counts))


def interval(page: Page, bars: Bars, example: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Of an example that is not one of the strongest: the fifth of the maximum that it lies in, from where to where,
    and the share of all tokens that lie there; None when that share is not known.
    """
    if bars.shares is None:
        return None
    most = page["max"]
    n = min(INTERVALS - 1, int(example["max"] / most * INTERVALS))
    return n * most / INTERVALS, (n + 1) * most / INTERVALS, bars.shares[n]
