"""The nearest decoder rows, against all cosines at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mistudiod.engine import neighbours
from mistudiod.engine.neighbours import decoder_neighbours


@pytest.mark.parametrize(("d_sae", "d_out", "count"), [(700, 24, 16), (50, 8, 5), (9, 4, 16), (2, 3, 16)])
def test_they_are_those_of_all_cosines(d_sae: int, d_out: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", 64)
    monkeypatch.setattr(neighbours, "_COLUMNS", 100)
    W_dec = torch.randn(d_sae, d_out, generator=torch.Generator().manual_seed(1)) * torch.rand(d_sae, 1).add(0.1)
    unit = torch.nn.functional.normalize(W_dec.double(), dim=1)
    every = (unit @ unit.T).fill_diagonal_(-2)
    indices, cosines = decoder_neighbours(W_dec, count)
    n = min(count, d_sae - 1)
    assert indices.shape == cosines.shape == (d_sae, n)
    assert indices.dtype == np.uint32 and cosines.dtype == np.float32
    expected = every.sort(dim=1, descending=True).values[:, :n].numpy()
    assert np.abs(cosines - expected).max() < 1e-6
    assert np.abs(np.take_along_axis(every.numpy(), indices.astype(np.int64), 1) - expected).max() < 1e-6
    assert all(len(set(row)) == n and number not in row for number, row in enumerate(indices.tolist()))


def test_a_row_of_zeros_is_as_near_to_all_and_breaks_nothing() -> None:
    W_dec = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    W_dec[7] = 0
    indices, cosines = decoder_neighbours(W_dec, 39)
    assert (cosines[7] == 0).all() and np.isfinite(cosines).all()
    assert (cosines[indices == 7] == 0).all()


def test_twins_have_cosine_one_and_the_first_comes_first() -> None:
    W_dec = torch.eye(4).repeat(3, 1) * torch.arange(1.0, 13)[:, None]
    indices, cosines = decoder_neighbours(W_dec, 2)
    assert indices[1].tolist() == [5, 9]
    assert cosines[1].tolist() == [1, 1]


def test_an_sae_of_one_feature_has_no_neighbours_and_progress_is_told() -> None:
    assert decoder_neighbours(torch.ones(1, 3))[0].shape == (1, 0)
    heard: list[int] = []
    decoder_neighbours(torch.randn(1100, 4), 2, heard.append)
    assert heard == [512, 1024, 1100]
