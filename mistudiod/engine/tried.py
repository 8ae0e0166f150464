"""What was measured of one way of reading an SAE, and whether it is better than another way beyond chance.

Every way is measured on the same text, so two of them are compared piece by piece of it: the pieces are drawn again
and again with replacement (a paired bootstrap), and what is compared is taken of each draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.ways import Way

DRAWS, SURE = 1_000, 3.0  # standard errors
LEAST, MUCH = 0.005, 0.2  # of FVU that it must be lower by: where the offset agrees, and where it does not
AS_GOOD, NEARER = 0.1, 0.75  # of FVU that may be lost, and times the offset, where it is the offset that tells
RESCALED = {"normalisation", "threshold"}  # what says how large activations are, and so which latents fire
FRONTIER, FRONTIER_RESCALED, TWICE = 0.3, 0.5, 2.0
FAR_OFF, NEAR = 1.5, 1.2  # times an L0 that a card says
FAR_GAIN = 1.25  # L1 makes what is rebuilt a little smaller
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Aim:
    """What is to be rebuilt, summed over each of n pieces of text."""

    tokens: Floats  # (n,)
    squares: Floats  # (n,): of all d numbers
    sums: Floats  # (n, d)

    @cached_property
    def variance(self) -> float:
        """sum ||y - mean||^2 of the whole text. Raises ValueError where there is none to explain."""
        found = float(self.variances(np.ones((1, len(self.tokens))))[0])
        if not math.isfinite(found):
            raise ValueError("the activations measured on are not all finite")
        if found <= 0:
            tokens = int(self.tokens.sum())
            raise ValueError(f"the {tokens} activations measured on are all the same, so there is no variance")
        return found

    def variances(self, draws: Floats) -> Floats:
        """The same of each draw: how often (m, n) it has each piece; (m,)."""
        about: Floats = draws @ self.squares - np.square(draws @ self.sums).sum(1) / (draws @ self.tokens)
        return about


@dataclass(frozen=True, eq=False)
class Tried:
    """One way. Of each piece of text: ``lost``, sum ||y_hat - y||^2 (n,); ``squares``, sum ||y_hat||^2 (n,);
    ``residuals``, sum of y_hat - y (n, d).
    """

    way: Way
    l0: float
    alive: float  # share of latents that fired at all
    lost: Floats
    squares: Floats
    residuals: Floats
    aim: Aim

    @cached_property
    def fvu(self) -> float:
        """Infinite where it is no number."""
        found = float(self.lost.sum()) / self.aim.variance
        return found if math.isfinite(found) else math.inf

    @cached_property
    def offset(self) -> float:
        """Which share of what is lost one vector would bring back, the same for all tokens.

        None of it in the place where b_dec was learned: there the gradient of b_dec is zero. It tells neighbouring
        hooks, and BOS, where FVU does not, because one of them is easier to rebuild. Pieces are multiplied with each
        other and not with themselves, so that noise adds nothing.
        """
        return float(self.offsets(np.ones((1, len(self.lost))))[0])

    @cached_property
    def gain(self) -> float:
        """By what is rebuilt would best be multiplied, about the mean of each: 1 where the decoder was learned."""
        n, residual, mean = self.aim.tokens.sum(), self.residuals.sum(0), self.aim.sums.sum(0)
        own = self.squares.sum() - np.square(residual + mean).sum() / n
        both = (self.squares.sum() + self.aim.squares.sum() - self.lost.sum()) / 2 - (residual + mean) @ mean / n
        return float(both / own) if own > 0 else math.nan

    def offsets(self, draws: Floats) -> Floats:
        """The same of each draw, (m,)."""
        with np.errstate(all="ignore"):
            together = np.square(draws @ self.residuals).sum(1)
            own = np.square(draws) @ np.square(self.residuals).sum(1)
            shares: Floats = (together - own) / ((draws @ self.aim.tokens) * (draws @ self.lost))
        return shares

    def logs(self, draws: Floats) -> Floats:
        """ln FVU of each draw, (m,)."""
        with np.errstate(all="ignore"):
            logs: Floats = np.log(draws @ self.lost / self.aim.variances(draws))
        return logs


@dataclass(frozen=True)
class Difference:
    """Of ln FVU, of one way less that of another; ``error`` is its standard error."""

    log: float
    error: float

    @classmethod
    def between(cls, one: Tried, other: Tried) -> Difference:
        """Infinite where one of them has no FVU."""
        if not (math.isfinite(one.fvu) and math.isfinite(other.fvu) and one.fvu > 0 < other.fvu):
            return cls(0.0 if one.fvu == other.fvu else math.copysign(math.inf, one.fvu - other.fvu), 0.0)
        return cls(math.log(one.fvu / other.fvu), _error(one, lambda draws: one.logs(draws) - other.logs(draws)))

    def below(self, log: float) -> bool:
        """Beyond chance."""
        return self.log + SURE * self.error < log


def better(one: Tried, other: Tried, l0: float | None) -> bool:
    """Whether a way is so much better than another that the other cannot have been meant.

    FVU must be lower beyond chance: by MUCH, or by a little where the offset is smaller as well; what a wrong BOS or a
    neighbouring hook costs is 1 to 15 % on the bundled model, many standard errors. Where a neighbour is the easier one
    to rebuild, FVU tells nothing, and an offset that is smaller by far, beyond chance, is enough. Neither counts for
    anything while the whole of what is rebuilt has another size.
    More latents explain more by themselves, and an SAE that is right would gain by a lower threshold: FVU must be lower
    by L0 to the power of FRONTIER besides, at most by a half.

    ``l0``: what the maker says, on other text. A way that is further from it may not be off by a factor of two. One
    that is near it, while the other is off by more, may lose as much FVU as fewer latents do, and need not make up for
    more of them. Nor need a way that has nothing to do with scales, up to that L0.
    """
    if not math.isfinite(one.fvu):
        return False
    frontier, usual, asked = _frontier(one, other), other.l0, 0.0
    if l0:
        if off(one.l0, l0) > max(off(other.l0, l0), TWICE):
            return False
        told = off(one.l0, l0) <= NEAR and off(other.l0, l0) > TWICE
        if told or frontier == FRONTIER:
            usual = max(usual, NEAR * l0)
        if told and one.l0 < other.l0:
            asked = frontier * math.log(other.l0 / one.l0)
    asked -= _by_latents(one.l0, usual, frontier)
    change = Difference.between(one, other)
    if off(one.gain, 1) > FAR_GAIN:
        return change.below(asked + math.log(1 - MUCH))
    if change.below(asked + math.log(1 - (LEAST if one.offset < other.offset else MUCH))):
        return True
    return change.log < asked + math.log(1 + AS_GOOD) and _offset_is_smaller(one, other)


def _offset_is_smaller(one: Tried, other: Tried) -> bool:
    """By far, and beyond chance."""
    if one.offset > NEARER * other.offset:
        return False
    error = _error(one, lambda draws: one.offsets(draws) - other.offsets(draws))
    return one.offset - other.offset + SURE * error < 0


def cost(one: Tried, declared: Tried) -> float:
    """ln FVU, and what the latents that fire besides those of the declared way explain by themselves."""
    by_latents = _by_latents(one.l0, declared.l0, _frontier(one, declared))
    return (math.log(one.fvu) if one.fvu > 0 else -math.inf) + by_latents


def off(measured: float, stated: float) -> float:
    """The factor between two positive numbers, 1 or more."""
    return max(measured / stated, stated / measured) if measured > 0 else math.inf


def _frontier(one: Tried, other: Tried) -> float:
    changed = {name for name, _ in one.way.changes.items() ^ other.way.changes.items()}
    return FRONTIER_RESCALED if changed & RESCALED else FRONTIER


def _by_latents(l0: float, usual: float, frontier: float) -> float:
    """ln FVU that an L0 beyond the usual one explains by itself."""
    most = math.log(TWICE)
    if l0 <= usual:
        return 0.0
    return min(frontier * math.log(l0 / usual), most) if usual > 0 else most


def _error(one: Tried, taken: Callable[[Floats], Floats]) -> float:
    """The standard error of what is taken of draws, the same draws for every two ways."""
    n = len(one.lost)
    found = taken(np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float64))
    found = found[np.isfinite(found)]
    return float(found.std()) if len(found) > DRAWS // 2 else math.inf
