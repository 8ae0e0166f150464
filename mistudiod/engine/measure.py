"""How good an SAE is on activations that it did not train on.

FVU is sum ||y - y_hat||^2 / sum ||y - mean||^2 with one mean over all measured tokens; a mean per batch would make it
depend on the batch size. Sums run in float64 over a stream of batches (tokens, d_in).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine.sae import SparseAutoencoder

DENSE_SHARE = 0.1  # of tokens: a latent that fires on more is dense
DENSITY_EDGES = [edge / 2 for edge in range(-12, 1)]  # log10 of firing shares, from 1e-6 to 1, two bins a decade
NEIGHBOURS = 1_024  # latents whose nearest neighbour is looked for


@dataclass(frozen=True)
class Measures:
    """What ``Meter`` found."""

    fvu: float  # 0 is perfect, 1 is no better than the mean
    l0: float  # latents that fire, mean over tokens
    alive: float  # share of latents that fired at least once
    dense: float  # share of latents that fired on more than DENSE_SHARE of the tokens
    tokens: int
    cosine: float  # of y and y_hat, mean over tokens
    l2_ratio: float  # ||y_hat|| / ||y||, mean over tokens; below 1 is shrinkage
    bias: float | None  # sum ||y_hat||^2 / sum <y, y_hat> (Rajamanoharan et al. 2024, arXiv:2404.16014, equation 10)
    fired: Tensor  # (d_sae,) int64, tokens on which each latent fired


class Variance:
    """sum ||x - mean||^2 of a stream, in float64, taken about the first batch's mean so that no digits cancel."""

    def __init__(self) -> None:
        self.tokens = 0
        self._shift: Tensor | None = None
        self._sum = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """x: (tokens, d_in), float64."""
        if self._shift is None:
            self._shift = x.mean(0)
            self._sum, self._squares = self._sum.to(x.device), self._squares.to(x.device)
        about = x - self._shift
        self._sum = self._sum + about.sum(0)
        self._squares = self._squares + about.square().sum()
        self.tokens += len(x)

    def total(self) -> Tensor:
        """(), float64; ValueError when there is nothing to explain."""
        if self.tokens == 0:
            raise ValueError("there are no activations to measure on")
        total = self._squares - self._sum.square().sum() / self.tokens
        if not total.isfinite():
            raise ValueError("the activations measured on are not all finite")
        if total <= 0:
            raise ValueError(f"the {self.tokens} activations measured on are all the same, so there is no variance")
        return total


@dataclass(frozen=True)
class Each:
    """What an SAE makes of each of n tokens."""

    y_hat: Tensor  # (n, d_out) float32
    sums: Tensor  # (n, 5) float64: ||y - y_hat||^2, cosine, ||y_hat|| / ||y||, ||y_hat||^2, <y, y_hat>
    l0: Tensor  # (n,) float64, latents that fire
    l1: Tensor  # (n,) float64, sum of the latents


class Meter:
    """Sums up, batch by batch, what an SAE makes of activations."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae, self._variance = sae, Variance()
        self._fired = torch.zeros(sae.d_sae, dtype=torch.int64, device=sae.W_dec.device)
        self._sums = torch.zeros(5, dtype=torch.float64, device=sae.W_dec.device)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Rebuild y (tokens, d_out), for an SAE x itself, from x (tokens, d_in): y_hat, float32."""
        return self.each(x, y).y_hat

    @torch.no_grad()
    def each(self, x: Tensor, y: Tensor) -> Each:
        """The same, with what comes of each token."""
        values, latents = self._sae.encode_active(x)
        rebuilt = self._sae.decode_active(values, latents, x)
        self._fired += torch.bincount(latents[values > 0], minlength=self._sae.d_sae)
        y, y_hat = y.double(), rebuilt.double()
        self._variance.add(y)
        norm = torch.linalg.vector_norm(y, dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        sums = torch.stack(
            [
                (y - y_hat).square().sum(1),
                torch.cosine_similarity(y, y_hat, dim=1),
                torch.linalg.vector_norm(y_hat, dim=1) / norm,
                y_hat.square().sum(1),
                (y * y_hat).sum(1),
            ],
            dim=1,
        )
        self._sums += sums.sum(0)
        return Each(rebuilt, sums, (values > 0).sum(1).double(), values.double().abs().sum(1))

    def measures(self) -> Measures:
        """Raises ValueError when there is no variance in what is to be rebuilt, or it is not finite."""
        total, tokens = self._variance.total(), self._variance.tokens
        lost, cosine, ratio, squares, products = self._sums.tolist()
        return Measures(
            fvu=lost / total.item(),
            l0=self._fired.sum().item() / tokens,
            alive=(self._fired > 0).double().mean().item(),
            dense=(self._fired > DENSE_SHARE * tokens).double().mean().item(),
            tokens=tokens,
            cosine=cosine / tokens,
            l2_ratio=ratio / tokens,
            bias=squares / products if products > 0 else None,
            fired=self._fired,
        )


def measure(sae: SparseAutoencoder, batches: Iterable[tuple[Tensor, Tensor]]) -> Measures:
    """Rebuild from every x (tokens, d_in) its y (tokens, d_out), for an SAE the same tensor, and sum up.

    Raises ValueError when there is no variance in what is to be rebuilt.
    """
    meter = Meter(sae)
    for x, y in batches:
        meter.add(x, y)
    return meter.measures()


def density_histogram(fired: Tensor, tokens: int) -> dict[str, list[float] | list[int] | int]:
    """How often latents fire, JSON-ready: how many have log10 of their firing share between one edge and the next.

    fired: (d_sae,) int64, of ``tokens``. Those that never fired are counted as ``never``; a share below the first edge
    falls into the first bin.
    """
    shares = fired[fired > 0].double().cpu() / tokens
    edges = torch.tensor(DENSITY_EDGES, dtype=torch.float64)
    # 1e-9: a share of exactly 0.1 lies at its edge, whatever the rounding of its logarithm
    bins = (torch.bucketize(shares.log10() + 1e-9, edges, right=True) - 1).clamp(0, len(edges) - 2)
    counts = torch.bincount(bins, minlength=len(edges) - 1).tolist()
    return {"log10_edges": DENSITY_EDGES, "latents": counts, "never": int((fired == 0).sum())}


def decoder_cosine(sae: SparseAutoencoder, seed: int = 0) -> float | None:
    """The largest cosine of a decoder row with another one, mean over at most NEIGHBOURS rows; None of a single row.

    Near 1, latents come in copies of each other.
    """
    return nearest(sae.W_dec, seed).double().mean().item() if sae.d_sae > 1 else None


@torch.no_grad()
def nearest(rows: Tensor, seed: int = 0) -> Tensor:
    """The largest cosine with another one, of at most NEIGHBOURS of ``rows`` (n, d), two at least: (drawn,) float32."""
    rows = torch.nn.functional.normalize(rows, dim=1)
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:NEIGHBOURS].to(rows.device)
    found = []
    for some in drawn.split(64):
        cosines = rows[some] @ rows.t()
        found.append(cosines.scatter_(1, some[:, None], -1.0).amax(1))
    return torch.cat(found)
