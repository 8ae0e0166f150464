"""Where activations lie: the scale that brings them to a usual size, and the point that biases begin at."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mistudiod.engine.harvest import NoActivations

HEAVY_TAIL = 4.0  # a normal distribution of hundreds of dimensions has 1.2, one of two dimensions 3.2
TAIL = 0.999  # the quantile that is compared with the median
ITERATIONS, TOLERANCE = 100, 1e-5
_ROWS = 4_096  # taken to float64 at once


class Centre(NamedTuple):
    """``point`` (d,) float32, ``how`` it was found, and the ``tail`` that decided it."""

    point: Tensor
    how: Literal["mean", "geometric median"]
    tail: float


def scale_of(x: Tensor) -> float:
    """What brings x (n, d) to a mean norm of sqrt(d). Raises NoActivations when there is no such number."""
    mean_norm = torch.linalg.vector_norm(x, dim=1).mean(dtype=torch.float64).item()
    if not (math.isfinite(mean_norm) and mean_norm > 0):
        raise NoActivations(f"the activations cannot be used: their mean norm is {mean_norm}")
    return math.sqrt(x.shape[1]) / mean_norm


def centre(x: Tensor) -> Centre:
    """The mean of x (n, d); where that would follow a few far tokens, the geometric median.

    Far tokens are there when the 99.9 % quantile of the distance to the mean is over HEAVY_TAIL times its median.
    """
    mean = x.mean(0, dtype=torch.float64).float()
    distances = torch.linalg.vector_norm(x - mean, dim=1).sort().values
    usual, far = distances[len(x) // 2].item(), distances[math.ceil(TAIL * (len(x) - 1))].item()
    tail = far / usual if usual > 0 else 1.0
    if tail > HEAVY_TAIL:
        return Centre(geometric_median(x), "geometric median", tail)
    return Centre(mean, "mean", tail)


def geometric_median(x: Tensor) -> Tensor:
    """The point (d,) float32 with the least sum of distances to the rows of x (n, d).

    Weiszfeld's iteration from the mean, in float64, until a step is under TOLERANCE of the mean distance; in the form
    that does not stop at a row which is no median (Vardi and Zhang 2000, The multivariate L1-median and associated
    data depth).
    """
    y = x.mean(0, dtype=torch.float64)
    for _ in range(ITERATIONS):
        step, mean_distance = _weiszfeld(x, y)
        y += step
        if not torch.linalg.vector_norm(step) > TOLERANCE * mean_distance:
            break
    return y.float()


def _weiszfeld(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The step from y, and the mean distance of the rows of x to y."""
    pull, weights, total = torch.zeros_like(y), y.new_zeros(()), y.new_zeros(())
    here = y.new_zeros(())  # rows that are y itself
    for rows in x.split(_ROWS):
        difference = rows.double() - y
        distance = torch.linalg.vector_norm(difference, dim=1)
        weight = torch.where(distance > 0, 1 / distance, 0)
        pull += weight @ difference  # the sum of unit vectors towards the rows
        weights += weight.sum()
        total += distance.sum()
        here += (distance == 0).sum()
    strength = torch.linalg.vector_norm(pull)
    stays = torch.where(strength > 0, (here / strength).clamp(max=1), 1)  # the rows at y hold it back
    return (1 - stays) * pull / weights.clamp(min=torch.finfo(torch.float64).tiny), total / len(x)
