"""One text through a model and an SAE: which features fire on which of its tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.harvest import token_norms
from mistudiod.engine.lm import LM
from mistudiod.engine.sae import SparseAutoencoder

DIGITS = 6  # of an activation: a float32 has seven
MOST_POOLED = 1000


@dataclass(frozen=True)
class Reading:
    """Of T tokens: ``ids``, ``special`` and ``outlier`` (T,), and of each the features that fire on it, the strongest
    first.

    ``values`` and ``latents`` are (T, n); a value of 0 is a feature that does not fire. On special tokens none does:
    they carry no text, and no SAE has learned them. Nor on outliers, which training and extraction leave out.
    """

    ids: list[int]
    special: list[bool]
    outlier: list[bool]
    values: Tensor
    latents: Tensor

    @property
    def l0(self) -> float:
        """How many features fire on a token of the text that counts."""
        text = sum(not (special or outlier) for special, outlier in zip(self.special, self.outlier, strict=True))
        return int((self.values > 0).sum()) / text if text else 0.0

    def without(self, ignored: Tensor) -> tuple[Reading, int]:
        """The same without some features, (d_sae,) bool; and how many of these fire on the text."""
        out = ignored.to(self.latents.device)[self.latents]
        count = len(self.latents[out & (self.values > 0)].unique())
        values, order = self.values.masked_fill(out, 0).sort(dim=1, descending=True, stable=True)
        return Reading(self.ids, self.special, self.outlier, values, self.latents.gather(1, order)), count

    def features(self, top: int) -> list[list[dict[str, Any]]]:
        """Of each token the ``top`` strongest features: ``{"index", "value"}``."""
        rows = zip(self.values[:, :top].tolist(), self.latents[:, :top].tolist(), strict=True)
        return [
            [{"index": latent, "value": _short(value)} for value, latent in zip(*row, strict=True) if value > 0]
            for row in rows
        ]

    def pooled(self) -> list[dict[str, Any]]:
        """Of the text as a whole its features, the strongest first: ``{"index", "max", "tokens", "peak"}``.

        ``tokens``: on how many it fires; ``peak``: the number of the token on which it is strongest.
        """
        position, column = (self.values > 0).nonzero(as_tuple=True)
        value, latent = self.values[position, column], self.latents[position, column]
        found, which, tokens = latent.unique(return_inverse=True, return_counts=True)
        order = value.argsort(descending=True, stable=True)  # of equal tokens the first
        first = torch.full((len(found),), len(value), device=value.device)
        first.scatter_reduce_(0, which[order], torch.arange(len(value), device=value.device), "amin")
        peak = order[first]
        strongest = value[peak].argsort(descending=True, stable=True)[:MOST_POOLED]
        columns = (found, value[peak], tokens, position[peak])
        return [
            {"index": index, "max": _short(most), "tokens": on, "peak": at}
            for index, most, on, at in zip(*(part[strongest].tolist() for part in columns), strict=True)
        ]


@torch.no_grad()
def read(
    lm: LM, sae: SparseAutoencoder, hook: str, ids: list[int], special_ids: Collection[int], norms: Mapping[str, float]
) -> Reading:
    """Which features of ``sae``, which reads at ``hook``, fire on the tokens ``ids``: one pass of the model.

    ``norms``: of some hooks the norm beyond which a token is an outlier. Activations are those of a harvest: in bf16.
    """
    hooks = list(dict.fromkeys([hook, *norms]))
    found = lm.activations_at(torch.tensor([ids]), hooks)
    at = {name: values[0].to(torch.bfloat16) for name, values in zip(hooks, found, strict=True)}
    special = torch.tensor([id in special_ids for id in ids], device=at[hook].device)
    outlier = torch.zeros_like(special)
    for name, limit in norms.items():
        outlier |= token_norms(at[name]) > limit
    outlier &= ~special  # a special token is left out as what it is
    values, latents = sae.encode_active(at[hook].float())
    values = values.masked_fill((special | outlier)[:, None], 0)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return Reading(ids, special.tolist(), outlier.tolist(), values, latents.gather(1, order))


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
