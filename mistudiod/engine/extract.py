"""One pass over text: how often and how strongly each latent fires, and the windows where it fires most."""

from __future__ import annotations

import torch
from torch import Tensor


class Extraction:
    """What is known of every latent after the windows given to ``add`` so far.

    ``fired`` (d_sae,) int64: tokens on which it fired. ``total`` (d_sae,) float64: the sum of its activations.
    ``best``, ``window``, ``position`` (d_sae, examples): its strongest windows, strongest first; a window counts once,
    by the token on which the latent is strongest. ``window`` is -1 where there are fewer.
    """

    def __init__(self, d_sae: int, examples: int, device: torch.device | str = "cpu") -> None:
        self.tokens = 0
        self.fired = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.total = torch.zeros(d_sae, dtype=torch.float64, device=device)
        self.best = torch.zeros(d_sae, examples, device=device)
        self.window = torch.full((d_sae, examples), -1, dtype=torch.int64, device=device)
        self.position = torch.zeros(d_sae, examples, dtype=torch.int64, device=device)

    @property
    def d_sae(self) -> int:
        return len(self.fired)

    def add(self, values: Tensor, latents: Tensor, windows: Tensor, positions: Tensor) -> None:
        """Take in the active latents of some tokens: values and latents (n, k), window and position of each (n,)."""
        self.tokens += len(values)
        entry = (values > 0).flatten().nonzero().squeeze(1)
        k = values.shape[1]
        value, latent = values.flatten()[entry], latents.flatten()[entry]
        token = entry // k
        self.fired += torch.bincount(latent, minlength=self.d_sae)
        self.total.scatter_add_(0, latent, value.double())
        self._keep_best(*_strongest_of_each_window(value, latent, windows[token], positions[token]))

    def _keep_best(self, value: Tensor, latent: Tensor, window: Tensor, position: Tensor) -> None:
        """Merge entries, of which no two share latent and window, into the strongest of each latent."""
        examples = self.best.shape[1]
        order = value.argsort(descending=True, stable=True)
        order = order[latent[order].argsort(stable=True)]  # by latent, in it the strongest first
        latent = latent[order]
        starts = torch.searchsorted(latent, torch.arange(self.d_sae, device=latent.device))
        rank = torch.arange(len(latent), device=latent.device) - starts[latent]
        kept = rank < examples
        order, latent, rank = order[kept], latent[kept], rank[kept]
        new = [torch.zeros_like(self.best), torch.full_like(self.window, -1), torch.zeros_like(self.position)]
        for tensor, entries in zip(new, (value, window, position), strict=True):
            tensor[latent, rank] = entries[order]
        both = [torch.cat(pair, dim=1) for pair in zip((self.best, self.window, self.position), new, strict=True)]
        first = both[0].argsort(dim=1, descending=True, stable=True)[:, :examples]
        self.best, self.window, self.position = (tensor.gather(1, first) for tensor in both)

    def strongest(self, count: int) -> Tensor:
        """The latents to show first, at most ``count`` of them: int64, the first the strongest.

        Of those that fire on at most 1 % of tokens (all, when there are none), those that are strong in all the
        windows kept of them: a latent with one strong window only may be an accident of that window.
        """
        fired = self.fired > 0
        rare = fired & (self.fired <= max(1, self.tokens // 100))
        score = torch.where(rare if rare.any() else fired, self.best[:, -1] + 1e-6 * self.best[:, 0], -1.0)
        order = score.argsort(descending=True, stable=True)[:count]
        return order[score[order] > 0]


def _strongest_of_each_window(
    value: Tensor, latent: Tensor, window: Tensor, position: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the entries (n,) that share latent and window, the one with the largest value; of equals, the first."""
    order = value.argsort(descending=True, stable=True)
    order = order[latent[order].argsort(stable=True)]
    order = order[window[order].argsort(stable=True)]
    value, latent, window, position = value[order], latent[order], window[order], position[order]
    first = torch.ones_like(latent, dtype=torch.bool)
    first[1:] = (latent[1:] != latent[:-1]) | (window[1:] != window[:-1])
    return value[first], latent[first], window[first], position[first]
