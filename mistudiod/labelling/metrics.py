"""What a judge's answers say of a label: balanced accuracy and AUROC, each with its 95 % interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Z = 1.959963984540054  # of 95 % in the middle of a normal distribution
YES = 50.0  # a belief of 0 to 100 from which on it counts as yes


@dataclass(frozen=True)
class Estimate:
    """A share between 0 and 1, and the interval that holds the true one 95 times in 100."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What is believed of one example: ``belief`` of 0 to 100 that the feature fires, None when there was no usable
    answer; ``fires``, whether it does.
    """

    belief: float | None
    fires: bool


def wilson(hits: int, of: int) -> Estimate:
    """A proportion. Wilson 1927, J. Am. Stat. Assoc. 22, 209-212: neither at 0 nor at 1 is its width nothing."""
    if of == 0:
        return Estimate(0.5, 0.0, 1.0)
    share, z2 = hits / of, Z * Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    # At the ends the limit is the share itself; rounding must not put it on the wrong side.
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, by squaring and adding their distances to either limit.

    Newcombe 1998, Statist. Med. 17, 873-890, method 10, for a difference of two; Zou & Donner 2008, Statist. Med. 27,
    1693-1702, for sums. Over features it says how well the mean of these labels is known, not that of others. Raises
    ValueError for none.
    """
    if not estimates:
        raise ValueError("there is no mean of no estimates")
    n = len(estimates)
    value = math.fsum(one.value for one in estimates) / n
    below = math.sqrt(math.fsum((one.value - one.low) ** 2 for one in estimates)) / n
    above = math.sqrt(math.fsum((one.high - one.value) ** 2 for one in estimates)) / n
    return Estimate(value, max(0.0, value - below), min(1.0, value + above))


def balanced_accuracy(hits: int, positives: int, rejections: int, negatives: int) -> Estimate:
    """The mean of recall, ``hits`` of ``positives``, and specificity, ``rejections`` of ``negatives``: 0.5 is chance,
    whoever says yes or no to everything included.
    """
    return mean([wilson(hits, positives), wilson(rejections, negatives)])


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> Estimate:
    """The share of pairs of a positive and a negative in which the positive has more; a tie counts half.

    Interval: Newcombe 2006, Statist. Med. 25, 559-573, method 5: Hanley & McNeil's variance at the true value instead
    of the estimate, as Wilson has it, with (m + n) / 2 - 1 for both of their degrees of freedom. So it has a width at
    0 and 1 too. With many ties it is wider than it need be.
    """
    m, n = len(positives), len(negatives)
    if not m or not n:
        return Estimate(0.5, 0.0, 1.0)
    value = _pairs(positives, negatives) / (m * n)

    def outside(truth: float) -> bool:
        return (value - truth) ** 2 > Z * Z * _hanley_mcneil(truth, m, n)

    return Estimate(value, _limit(value, 0.0, outside), _limit(value, 1.0, outside))


def _pairs(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Pairs in which the positive has more, ties half, by the sum of the positives' middle ranks."""
    counted = sorted([(value, True) for value in positives] + [(value, False) for value in negatives])
    wins, below, at = 0.0, 0, 0
    while at < len(counted):
        end = at
        while end < len(counted) and counted[end][0] == counted[at][0]:
            end += 1
        up = sum(positive for _, positive in counted[at:end])
        down = end - at - up
        wins += up * (below + down / 2)
        below, at = below + down, end
    return wins


def _hanley_mcneil(truth: float, m: int, n: int) -> float:
    """The variance of an estimated AUROC. Hanley & McNeil 1982, Radiology 143, 29-36."""
    freedom = (m + n) / 2 - 1
    spread = 1 + freedom * (1 - truth) / (2 - truth) + freedom * truth / (1 + truth)
    return truth * (1 - truth) * spread / (m * n)


def _limit(inside: float, end: float, outside: Callable[[float], bool]) -> float:
    """Where, between a value that is inside and an end, one comes to be outside."""
    for _ in range(50):
        middle = (inside + end) / 2
        inside, end = (inside, middle) if outside(middle) else (middle, end)
    return inside


@dataclass(frozen=True)
class Measured:
    """How well a label told in which of its examples the feature fires. ``tp``, ``fp``, ``tn`` and ``fn`` count the
    examples with an answer, ``failed`` those without.
    """

    tp: int
    fp: int
    tn: int
    fn: int
    failed: int
    accuracy: Estimate  # balanced
    auroc: Estimate

    @property
    def examples(self) -> int:
        return self.tp + self.fp + self.tn + self.fn + self.failed

    def record(self) -> dict[str, int | float]:
        """As a score is sent and kept."""
        return {
            "balanced_accuracy": self.accuracy.value,
            "low": self.accuracy.low,
            "high": self.accuracy.high,
            "auroc": self.auroc.value,
            "auroc_low": self.auroc.low,
            "auroc_high": self.auroc.high,
            "tp": self.tp,
            "fp": self.fp,
            "tn": self.tn,
            "fn": self.fn,
            "failed": self.failed,
            "examples": self.examples,
        }


def measure(verdicts: Sequence[Verdict]) -> Measured:
    """What verdicts are worth.

    An example without a usable answer counts as wrong, in the balanced accuracy as in the AUROC, where such a positive
    ranks below and such a negative above all others. Left out, a judge that refuses whatever is hard would do better
    than one that tries; counted as a toss-up, better than one that tries and errs. So a figure is never above what
    the missing answers could have made it. The price is that a poor judge makes labels look poor: ``failed`` stands
    beside every figure, and whoever scores gives none at all when most examples failed.
    """
    answered = [(one.belief >= YES, one.fires) for one in verdicts if one.belief is not None]
    tp, fp = answered.count((True, True)), answered.count((True, False))
    tn, fn = answered.count((False, False)), answered.count((False, True))
    positives = [-math.inf if one.belief is None else one.belief for one in verdicts if one.fires]
    negatives = [math.inf if one.belief is None else one.belief for one in verdicts if not one.fires]
    return Measured(
        tp,
        fp,
        tn,
        fn,
        len(verdicts) - len(answered),
        balanced_accuracy(tp, len(positives), tn, len(negatives)),
        auroc(positives, negatives),
    )
