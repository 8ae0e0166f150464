"""What an SAE is learning, while it learns: a few of its features and the windows where they are strongest so far.

All of it comes from batches that were trained on anyway. A feature means another thing a thousand steps later, so the
activations of the tokens that are kept are kept too, and every look values them anew by the weights of that moment.
Nothing here changes the training's state, or draws from its random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine.architectures import TrainingSae

FEATURES, STRONGEST = 8, 5  # that are shown, and windows of each
LOOK_TOKENS = 256  # of a batch that are looked at, at most
MODERATE = (0.001, 0.05)  # firing shares of features that say something
MEMORY = 0.95  # of the firing shares, a look


@dataclass
class Shown:
    """One feature, and where it is strongest, strongest first."""

    feature: int
    density: float  # share of the tokens of the latest looks on which it fired
    strongest: list[tuple[float, int]]  # value, and where: window * context + position


class Live:
    """Follows FEATURES of the features of one SAE in training."""

    def __init__(self, d_sae: int, seed: int = 0, context: int = 1) -> None:
        self.shown: list[Shown] = []
        self._context = context  # tokens in a window: a window is shown once
        # which features are taken first, of those that will do; the same for the same seed
        self._priority = torch.randperm(d_sae, generator=torch.Generator().manual_seed(seed))
        self._density: Tensor | None = None  # (d_sae,)
        self._rows: dict[int, Tensor] = {}  # where → x there (d_in,), of what is shown

    @torch.no_grad()
    def look(self, sae: TrainingSae, x: Tensor, where: Tensor, scale: float) -> list[Shown]:
        """Take in x (tokens, d_in), scaled as the SAE is shown it, of which row i lies at ``where[i]``, int64.

        Values come divided by ``scale``: in the units in which the SAE is saved.
        """
        x, where = x[:LOOK_TOKENS], where[:LOOK_TOKENS]  # batches are shuffled: any part will do
        old = list(self._rows)
        latents = dense_latents(sae, torch.cat([x, *(row[None] for row in self._rows.values())]))
        self._note_density((latents[: len(x)] > 0).float().mean(0))
        features = self._choose(sae.dead)
        if not features:
            return []
        everywhere = [*where.tolist(), *old]
        chosen = latents[:, features] / scale  # (tokens + kept, features)
        best = chosen.topk(min(len(chosen), STRONGEST * 4), dim=0)
        density = self._density_of(features)
        self.shown = [
            Shown(feature, share, self._strongest(values, [everywhere[row] for row in rows]))
            for feature, share, values, rows in zip(
                features, density, best.values.t().tolist(), best.indices.t().tolist(), strict=True
            )
        ]
        self._keep(x, everywhere)
        return self.shown

    def _note_density(self, now: Tensor) -> None:
        self._density = now if self._density is None else self._density.lerp(now, 1 - MEMORY)

    def _density_of(self, features: list[int]) -> list[float]:
        assert self._density is not None
        shares: list[float] = self._density[features].tolist()
        return shares

    def _choose(self, dead: Tensor) -> list[int]:
        """Those that were shown and live, each in its place, and new ones in the places of those that died."""
        assert self._density is not None
        places = [one.feature for one in self.shown]
        places = [-1 if gone else feature for feature, gone in zip(places, dead[places].tolist(), strict=True)]
        if -1 not in places and len(places) == FEATURES:
            return places
        low, high = MODERATE
        density = self._density.cpu()
        moderate = (density >= low) & (density <= high)
        order = torch.where(moderate, 0, 1) * len(density) + self._priority
        order[(density == 0) | dead.cpu()] = torch.iinfo(order.dtype).max
        fitting = [one for one in order.argsort()[: 2 * FEATURES].tolist() if density[one] > 0 and not dead[one]]
        new = iter([one for one in fitting if one not in places])
        filled = [next(new, -1) if feature < 0 else feature for feature in places]
        filled += [next(new, -1) for _ in range(FEATURES - len(places))]
        return [feature for feature in filled if feature >= 0]

    def _strongest(self, values: list[float], where: list[int]) -> list[tuple[float, int]]:
        """The first of each window, of values in descending order."""
        found: dict[int, tuple[float, int]] = {}
        for value, place in zip(values, where, strict=True):
            if value > 0:
                found.setdefault(place // self._context, (value, place))
        return list(found.values())[:STRONGEST]

    def _keep(self, x: Tensor, everywhere: list[int]) -> None:
        """Hold x of what is shown, and of nothing else."""
        row_of = {place: row for row, place in enumerate(everywhere[: len(x)])}
        wanted = dict.fromkeys(place for one in self.shown for _, place in one.strongest)
        self._rows = {place: self._rows[place] if place in self._rows else x[row_of[place]].clone() for place in wanted}


def dense_latents(sae: TrainingSae, x: Tensor) -> Tensor:
    """All latents (n, d_sae) of x (n, d_in), scaled as in training, as the SAE saved now would have them."""
    params = sae.params
    centred = x - params["b_dec"] if sae.centred else x
    return sae._rule().latents(torch.addmm(params["b_enc"], centred, params["W_enc_T"].t()))
