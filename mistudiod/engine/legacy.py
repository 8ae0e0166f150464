"""What other libraries call the variance explained, where it is not 1 - FVU: to compare with what they publish."""

from __future__ import annotations

import math

from torch import Tensor

from mistudiod.engine.measure import Variance

FORMULAS = {
    "explained_variance_by_token": (
        "mean over tokens of 1 - ||y - y_hat||^2 / ||y - mean||^2, with the mean of a batch of 2 to 4,096 tokens "
        "(SAELens: explained_variance_legacy; the figures of SAEBench's paper)"
    ),
    "explained_variance_of_residual": (
        "1 - var(y - y_hat) / var(y): a constant error costs nothing (dictionary_learning)"
    ),
    "normalized_mse": "sum ||y - y_hat||^2 / sum ||y||^2, about zero (OpenAI)",
}


class Legacy:
    """Sums them up, batch by batch."""

    def __init__(self) -> None:
        self._variance, self._error = Variance(), Variance()
        self._by_token = self._lost = self._squares = 0.0
        self._apart = 0  # tokens that are not their batch's mean, as the one token of a batch is

    def add(self, y: Tensor, y_hat: Tensor) -> None:
        """Both (n, d_out)."""
        y, error = y.double(), y.double() - y_hat.double()
        self._variance.add(y)
        self._error.add(error)
        lost, about = error.square().sum(1), (y - y.mean(0)).square().sum(1)
        apart = about > 0
        self._by_token += (1 - lost[apart] / about[apart]).sum().item()
        self._apart += int(apart.sum())
        self._lost += lost.sum().item()
        self._squares += y.square().sum().item()

    def figures(self) -> dict[str, float]:
        """NaN where there is nothing to divide by. Raises ValueError where there is no variance."""
        total = self._variance.total().item()
        try:
            error = self._error.total().item()
        except ValueError:  # the same error for every token
            error = 0.0
        return {
            "explained_variance_by_token": self._by_token / self._apart if self._apart else math.nan,
            "explained_variance_of_residual": 1 - error / total,
            "normalized_mse": self._lost / self._squares,
        }
