"""What a trained SAE must beat: as many principal components, and a dictionary that learned nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine.measure import Variance

RIDGE = 1e-8  # on the Gram matrix of chosen atoms, whose diagonal is 1: two equal atoms would make it singular
RANDOM_ROWS, GATHERED = 256, 1 << 25  # tokens whose atoms are gathered at once, and numbers of them: 256 MiB


@dataclass(frozen=True)
class Components:
    """The first principal components of activations: dense, but the best linear map of that rank."""

    mean: Tensor  # (d_in,) float64
    axes: Tensor  # (d_in, n) float64

    @classmethod
    @torch.no_grad()
    def of(cls, train: Iterable[Tensor], n_components: int) -> Components:
        """Raises ValueError where there are not as many, or no activations."""
        mean, covariance = _moments(train)
        if not 0 <= n_components <= len(mean):
            raise ValueError(f"n_components ({n_components}) must be between 0 and d_in ({len(mean)})")
        vectors = torch.linalg.eigh(covariance).eigenvectors
        return cls(mean, vectors[:, len(mean) - n_components :])  # largest last

    @torch.no_grad()
    def residual(self, x: Tensor) -> Tensor:
        """What of x (tokens, d_in) float64 they leave."""
        about = x - self.mean
        return about - about @ self.axes @ self.axes.t()


@dataclass(frozen=True)
class RandomDictionary:
    """A dictionary that learned nothing: random unit atoms, k of them a token.

    A token's atoms are those with the largest |<x - mean, atom>|, its coefficients the least-squares ones. A trained
    SAE of this width and k that is no better has learned nothing.
    """

    mean: Tensor  # (d_in,) float64
    atoms: Tensor  # (d_sae, d_in) float64
    k: int

    @classmethod
    def of(cls, mean: Tensor, d_sae: int, k: int, seed: int) -> RandomDictionary:
        """mean: (d_in,); k <= d_in."""
        d_in = len(mean)
        if not 1 <= k <= min(d_sae, d_in):
            raise ValueError(f"k ({k}) must be between 1 and the smaller of d_sae ({d_sae}) and d_in ({d_in})")
        atoms = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        atoms /= torch.linalg.vector_norm(atoms, dim=1, keepdim=True)  # in place: of a wide SAE they are gigabytes
        return cls(mean, atoms.to(mean.device), k)

    @property
    def rows(self) -> int:
        """Tokens that are taken at once."""
        return max(1, min(RANDOM_ROWS, GATHERED // (self.k * len(self.mean))))

    @torch.no_grad()
    def residual(self, x: Tensor) -> Tensor:
        """What of x (tokens, d_in) float64, not more than ``rows``, it leaves."""
        x = x - self.mean
        chosen = self.atoms[(x @ self.atoms.t()).abs().topk(self.k, dim=1, sorted=False).indices]  # (tokens, k, d_in)
        gram = chosen @ chosen.mT + RIDGE * torch.eye(self.k, dtype=x.dtype, device=x.device)
        coefficients: Tensor = torch.linalg.solve(gram, chosen @ x[:, :, None])  # (tokens, k, 1)
        fitted: Tensor = (chosen.mT @ coefficients).squeeze(2)
        return x - fitted


def pca_fvu(train: Iterable[Tensor], test: Iterable[Tensor], n_components: int) -> float:
    """FVU on ``test`` of the first principal components of ``train``."""
    components = Components.of(train, n_components)
    variance, lost = Variance(), torch.zeros_like(components.mean[0])
    for x in test:
        variance.add(x.double())
        lost += components.residual(x.double()).square().sum()
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


def random_dictionary_fvu(test: Iterable[Tensor], mean: Tensor, d_sae: int, k: int, seed: int) -> float:
    """FVU on ``test`` of a random dictionary: d_sae atoms, k of them a token. mean: (d_in,); k <= d_in."""
    random = RandomDictionary.of(mean, d_sae, k, seed)
    variance, lost = Variance(), torch.zeros((), dtype=torch.float64, device=mean.device)
    for batch in test:
        for x in batch.split(random.rows):
            variance.add(x.double())
            lost += random.residual(x.double()).square().sum()
    return (lost / variance.total()).item()
