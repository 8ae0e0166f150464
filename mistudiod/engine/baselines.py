"""What a trained SAE must beat: as many principal components, and a dictionary that learned nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from mistudiod.engine.measure import Variance

RIDGE = 1e-8  # on the Gram matrix of chosen atoms, whose diagonal is 1: two equal atoms would make it singular
RANDOM_ROWS = 256  # tokens whose atoms are gathered at once


@torch.no_grad()
def pca_fvu(train: Iterable[Tensor], test: Iterable[Tensor], n_components: int) -> float:
    """FVU on ``test`` of the first principal components of ``train``: dense, but the best linear map of that rank."""
    mean, covariance = _moments(train)
    if not 0 <= n_components <= len(mean):
        raise ValueError(f"n_components ({n_components}) must be between 0 and d_in ({len(mean)})")
    axes = torch.linalg.eigh(covariance).eigenvectors[:, len(mean) - n_components :]  # (d_in, n), largest last
    variance, lost = Variance(), torch.zeros_like(mean[0])
    for x in test:
        x = x.double()
        variance.add(x)
        about = x - mean
        lost += (about - about @ axes @ axes.t()).square().sum()
    return (lost / variance.total()).item()


def _moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d_in,) and covariance (d_in, d_in) of a stream, float64, taken about the first batch's mean."""
    stream = iter(batches)
    batch = next(stream, None)
    if batch is None:
        raise ValueError("there are no activations to fit principal components to")
    shift, tokens = batch.double().mean(0), 0
    first, second = torch.zeros_like(shift), torch.zeros_like(torch.outer(shift, shift))
    for x in itertools.chain([batch], stream):
        about = x.double() - shift
        first += about.sum(0)
        second += about.t() @ about
        tokens += len(x)
    offset = first / tokens
    return shift + offset, second / tokens - torch.outer(offset, offset)


@torch.no_grad()
def random_dictionary_fvu(test: Iterable[Tensor], mean: Tensor, d_sae: int, k: int, seed: int) -> float:
    """FVU on ``test`` of a dictionary that learned nothing: d_sae random unit atoms, k of them a token.

    A token's atoms are those with the largest |<x - mean, atom>|, its coefficients the least-squares ones. A trained
    SAE of this width and k that is no better has learned nothing. mean: (d_in,); k <= d_in.
    """
    d_in = len(mean)
    if not 1 <= k <= min(d_sae, d_in):
        raise ValueError(f"k ({k}) must be between 1 and the smaller of d_sae ({d_sae}) and d_in ({d_in})")
    atoms = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    atoms = (atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)).to(mean.device)
    variance, lost = Variance(), torch.zeros((), dtype=torch.float64, device=mean.device)
    for batch in test:
        for start in range(0, len(batch), RANDOM_ROWS):
            x = batch[start : start + RANDOM_ROWS].double()
            variance.add(x)
            lost += _least_squares_residual(x - mean, atoms, k).square().sum()
    return (lost / variance.total()).item()


def _least_squares_residual(x: Tensor, atoms: Tensor, k: int) -> Tensor:
    """What of x (tokens, d_in) the k best-aligned atoms leave, by least squares on them."""
    chosen = atoms[(x @ atoms.t()).abs().topk(k, dim=1, sorted=False).indices]  # (tokens, k, d_in)
    gram = chosen @ chosen.mT + RIDGE * torch.eye(k, dtype=x.dtype, device=x.device)
    coefficients: Tensor = torch.linalg.solve(gram, chosen @ x[:, :, None])  # (tokens, k, 1)
    fitted: Tensor = (chosen.mT @ coefficients).squeeze(2)
    return x - fitted
