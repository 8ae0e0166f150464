"""The activations of a few features, with no more of the encoder than the rule needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder


class LatentsOf:
    """Of an SAE's ``features`` the activations on tokens: ``latents(x)``, x (n, d_in) → (n, features) float32.

    Which are the k largest is known only when all are; any other rule looks at a feature's own columns and no others.
    """

    def __init__(self, sae: SparseAutoencoder, features: Sequence[int]) -> None:
        self._sae, self._places = sae, torch.tensor(list(features), device=sae.W_enc.device)
        if not isinstance(sae.rule, TopKRule):
            tensors = {name: getattr(sae.rule, name)[self._places] for name in sae.rule.tensors}
            self._sae = replace(
                sae,
                W_enc=sae.W_enc[:, self._places],
                b_enc=sae.b_enc[self._places],
                W_dec=sae.W_dec[self._places],
                rule=replace(sae.rule, **tensors),
            )

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        x = x.float()
        if not isinstance(self._sae.rule, TopKRule):
            return self._sae.encode(x)
        values, latents = self._sae.encode_active(x)
        n = len(self._places)  # all others share a column that nobody reads: (tokens, d_sae) never exists
        columns = latents.new_full((self._sae.d_sae,), n)
        columns[self._places] = torch.arange(n, device=x.device)
        return torch.zeros(len(x), n + 1, device=x.device).scatter_(1, columns[latents], values)[:, :n]
