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
from mistudiod.engine.trainer import Trainer

FEATURES, STRONGEST = 8, 5  # that are shown, and windows of each
CANDIDATES = 4 * STRONGEST  # strongest tokens of a batch that are looked at: some may share a window
CHOOSING_TOKENS = 256  # of a batch, for choosing features by how often they fire
MODERATE = (0.001, 0.05)  # firing shares of features that say something
MEMORY = 0.9  # of the firing shares, a look


@dataclass
class Shown:
    """One feature, and where it is strongest, strongest first."""

    feature: int
    density: float  # share of the tokens of the latest batches on which it fired
    strongest: list[tuple[float, int]]  # value, as the saved SAE would have it, and where: window * context + position


class Live:
    """Follows FEATURES of the features of one SAE in training; ``context`` is how many tokens a window has."""

    def __init__(self, d_sae: int, context: int, seed: int = 0) -> None:
        self.shown: list[Shown] = []
        self._context = context
        # which features are taken first, of those that will do
        self._priority = torch.randperm(d_sae, generator=torch.Generator().manual_seed(seed))
        self._kept: dict[int, Tensor] = {}  # where → x there (1, d_in), scaled, of what is shown

    @torch.no_grad()
    def look(self, trainer: Trainer, batch: Tensor, where: Tensor) -> list[Shown]:
        """Take in the batch of the latest step (tokens, all columns), of which row i lies at ``where[i]``, int64."""
        features = self._choose(trainer, batch)
        if not features:
            return []
        scale = (trainer.y or trainer.x).scale
        values = trainer.sae.values_of(torch.tensor(features, device=batch.device)) / scale  # (tokens, features)
        best = values.topk(min(len(values), CANDIDATES), dim=0)
        rows = best.indices.flatten().cpu()
        places = where.cpu()[rows].view(best.indices.shape)
        strengths, places = torch.cat([best.values.cpu(), self._kept_values(trainer.sae, features) / scale]), [
            *places.tolist(), *([place] * len(features) for place in self._kept)]  # fmt: skip
        old = {one.feature: one.density for one in self.shown}
        densities = [now + MEMORY * (old.get(feature, now) - now)
                     for feature, now in zip(features, (values > 0).float().mean(0).tolist(), strict=True)]  # fmt: skip
        self.shown = [
            Shown(feature, density, self._strongest(strengths[:, i].tolist(), [row[i] for row in places]))
            for i, (feature, density) in enumerate(zip(features, densities, strict=True))
        ]
        self._keep(trainer, batch, dict(zip(where.cpu()[rows].tolist(), rows.tolist(), strict=True)))
        return self.shown

    def _choose(self, trainer: Trainer, batch: Tensor) -> list[int]:
        """Those that were shown and live, each in its place, and new ones in the places of those that died."""
        dead = trainer.sae.dead.cpu()
        places = [-1 if dead[one.feature] else one.feature for one in self.shown]
        if -1 not in places and len(places) == FEATURES:
            return places
        some = trainer.x.of(batch[:CHOOSING_TOKENS])  # batches are shuffled: any part will do
        density = (dense_latents(trainer.sae, some) > 0).float().mean(0).cpu()
        low, high = MODERATE
        moderate = (density >= low) & (density <= high)
        order = torch.where(moderate, self._priority, self._priority + len(density))
        order = order.masked_fill((density == 0) | dead, 2 * len(density))
        fitting = order.argsort()[: int((order < 2 * len(density)).sum())][: 2 * FEATURES].tolist()
        new = iter([one for one in fitting if one not in places])
        filled = [next(new, -1) if feature < 0 else feature for feature in places]
        filled += [next(new, -1) for _ in range(FEATURES - len(places))]
        return [feature for feature in filled if feature >= 0]

    def _kept_values(self, sae: TrainingSae, features: list[int]) -> Tensor:
        """What is kept, by the weights of now: (kept, features)."""
        if not self._kept:
            return torch.empty(0, len(features))
        return dense_latents(sae, torch.cat(list(self._kept.values())))[:, features].cpu()

    def _strongest(self, values: list[float], where: list[int]) -> list[tuple[float, int]]:
        """The strongest of each window, of those the strongest."""
        found: dict[int, tuple[float, int]] = {}
        for value, place in sorted(zip(values, where, strict=True), reverse=True):
            if value > 0:
                found.setdefault(place // self._context, (value, place))
        return list(found.values())[:STRONGEST]

    def _keep(self, trainer: Trainer, batch: Tensor, row_of: dict[int, int]) -> None:
        """Hold x of what is shown, and of nothing else; new ones are rows of ``batch``."""
        wanted = dict.fromkeys(place for one in self.shown for _, place in one.strongest)
        new = [place for place in wanted if place not in self._kept]
        found = self._kept | {place: trainer.x.of(batch[row_of[place], None]) for place in new}
        self._kept = {place: found[place] for place in wanted}


def dense_latents(sae: TrainingSae, x: Tensor) -> Tensor:
    """All latents (n, d_sae) of x (n, d_in), scaled as in training, as the SAE saved now would have them."""
    params = sae.params
    centred = x - params["b_dec"] if sae.centred else x
    return sae._rule().latents(torch.addmm(params["b_enc"], centred, params["W_enc_T"].t()))
