"""Logistic regression by L-BFGS: the probes that ask what a vector of numbers knows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY = 0.001  # times half the squared weights of standardised inputs, beside the mean loss of a token
PENALTIES = (1.0, 0.1, 0.01, PENALTY)  # of probes with many inputs, of which few tokens would be learned by heart
STEPS, TOLERANCE = 100, 1e-7  # of 100 and of 500 steps the directions have a cosine of 0.9999 (26 letters, width 192)


@dataclass(frozen=True)
class Probe:
    """Of inputs x (n, d): scores x weights + bias, yes where they are above 0. weights: (d, q), bias: (q,), float64."""

    weights: Tensor
    bias: Tensor

    def scores(self, x: Tensor) -> Tensor:
        """(n, q) float64."""
        return torch.addmm(self.bias, x.double(), self.weights)


def fit_chosen(x: Tensor, y: Tensor) -> Probe:
    """The same with the one of PENALTIES that is best, on the last quarter of the tokens, for a probe of the others.

    Penalties are tried from the largest on, as long as it gets better. Tokens in order are of other windows there.
    """
    cut, lowest, chosen = 3 * len(x) // 4, float("inf"), PENALTIES[0]
    for penalty in PENALTIES:
        loss = _loss(fit(x[:cut], y[:cut], penalty).scores(x[cut:]), y[cut:].double()).item()
        if loss >= lowest:
            break
        lowest, chosen = loss, penalty
    return fit(x, y, chosen)


def fit(x: Tensor, y: Tensor, penalty: float = PENALTY) -> Probe:
    """Of x (n, d) one probe for each column of y (n, q), which are 0 or 1: the least of

    mean over tokens of log(1 + exp(-+ score)) + penalty / 2 x |weights|^2, the weights those of x less its mean over
    its deviation; an input that never changes has no weight.
    """
    x, y = x.double(), y.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    factor = torch.where(deviation > 1e-12 * x.abs().amax(0).clamp_min(1e-300), 1 / deviation, 0.0)
    weights = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights, bias], max_iter=STEPS, tolerance_grad=TOLERANCE, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        scaled = weights * factor[:, None]  # and not x, of which there would be two
        scores = torch.addmm(bias - mean @ scaled, x, scaled)
        total = _loss(scores, y) + penalty / 2 * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach() * factor[:, None]
    return Probe(found, bias.detach() - mean @ found)


def _loss(scores: Tensor, y: Tensor) -> Tensor:
    """(n, q) both: of each probe the mean over tokens, and of these the sum."""
    return F.binary_cross_entropy_with_logits(scores, y, reduction="none").mean(0).sum()
