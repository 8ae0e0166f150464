"""The scale of activations, and the centre that biases begin at: against brute force, with and without far tokens."""

from __future__ import annotations

import math

import pytest
import torch

from mistudiod.engine.centre import HEAVY_TAIL, centre, geometric_median, scale_of
from mistudiod.engine.harvest import NoActivations


def normal(n=2_000, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 3


def far(n=2_000, d=16):
    x = normal(n, d)
    x[: n // 100, 0] += 500
    return x


def cost(x, y):
    return torch.linalg.vector_norm(x.double() - y.double(), dim=1).sum().item()


def brute_force(x):
    """The median by a general optimiser."""
    y = x.double().mean(0).requires_grad_()
    optimiser = torch.optim.LBFGS([y], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        total = torch.linalg.vector_norm(x.double() - y, dim=1).sum()
        total.backward()
        return total

    optimiser.step(closure)
    return y.detach()


@pytest.mark.parametrize("x", [normal(), far(), normal(50, 3), normal(5_000, 2)], ids=str)
def test_the_geometric_median_is_the_point_of_the_least_distances(x):
    found = geometric_median(x)
    assert cost(x, found) <= cost(x, brute_force(x)) * (1 + 1e-8)
    assert found.dtype == torch.float32


def test_the_median_on_a_line_is_the_usual_median():
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0], [1000.0]])
    assert geometric_median(x).item() == pytest.approx(2, abs=0.05)


def test_a_start_on_a_row_that_is_no_median_is_left():
    x = torch.tensor([[0.0, 0], [4, 0], [4, 0.1], [4, -0.1], [-12, 0]])  # the mean is the first row
    assert torch.equal(x.mean(0), x[0])
    assert torch.allclose(geometric_median(x), torch.tensor([4.0, 0]), atol=0.1)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_rows_that_are_all_equal_are_their_own_median(rows):
    x = torch.full((rows, 5), 2.5)
    assert torch.equal(geometric_median(x), x[0])
    assert torch.equal(centre(x).point, x[0])


def test_a_row_that_most_rows_equal_is_the_median():
    x = torch.cat([torch.zeros(20, 4), normal(10, 4)])
    assert geometric_median(x).abs().max() < 1e-2


def test_the_mean_is_taken_unless_a_few_tokens_lie_far_off():
    usual, heavy = centre(normal()), centre(far())
    assert usual.how == "mean"
    assert torch.allclose(usual.point, normal().mean(0))
    assert 1 < usual.tail < HEAVY_TAIL < heavy.tail
    assert heavy.how == "geometric median"
    assert (heavy.point - 3).abs().max() < 0.2
    assert far().mean(0)[0] > 7, "where the mean would be"


def test_a_scale_that_does_not_exist_is_refused():
    assert scale_of(normal()) == pytest.approx(math.sqrt(16) / normal().norm(dim=1).mean().item(), rel=1e-6)
    for x in (torch.zeros(5, 3), torch.full((5, 3), math.inf), torch.full((5, 3), math.nan), torch.empty(0, 3)):
        with pytest.raises(NoActivations, match="mean norm"):
            scale_of(x)
