"""The largest activation of every feature in a short pass over text, for an SAE of which no extraction says it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from mistudiod.engine.encode import Encoder
from mistudiod.engine.extract import spread
from mistudiod.engine.harvest import NoActivations, token_norms
from mistudiod.engine.lm import LM, PASS_TOKENS
from mistudiod.engine.sae import SparseAutoencoder

TOKENS = 8_192


@torch.no_grad()
def maxima(
    lm: LM,
    sae: SparseAutoencoder,
    hook: str,
    windows: Tensor,
    special_ids: Collection[int],
    norms: Mapping[str, float],
    tokens: int = TOKENS,
    heard: Callable[[int], None] = lambda _read: None,
) -> Tensor:
    """The largest activation of each feature of ``sae``, which reads at ``hook``: (d_sae,) float32, on the CPU.

    Of ``windows`` (n, T) ids evenly spread ones are read, as many as hold ``tokens``. Tokens count as in an extraction
    and activations are those of a harvest, in bf16; ``norms``: of some hooks the norm beyond which a token is an
    outlier. ``heard`` is told between passes how many tokens were read, and may raise to end it all. 0: the feature
    fired nowhere. Raises NoActivations when no token counts, or when numbers are not finite.
    """
    hooks, encoder = list(dict.fromkeys([hook, *norms])), Encoder(sae)
    special = torch.tensor(sorted(special_ids), dtype=torch.int64)
    chosen = windows[torch.from_numpy(spread(len(windows), windows.shape[1], tokens))].cpu()
    found, read, counted = torch.zeros(sae.d_sae), 0, 0
    for ids in chosen.split(max(1, PASS_TOKENS[lm.device.type] // windows.shape[1])):
        heard(read)
        values = dict(zip(hooks, lm.activations_at(ids, hooks), strict=True))
        at = {name: one.flatten(0, 1).to(torch.bfloat16) for name, one in values.items()}
        counts = ~torch.isin(ids, special).flatten().to(lm.device)
        for name, limit in norms.items():
            counts &= token_norms(at[name]) <= limit
        x = at[hook][counts].float()
        if not x.sum().isfinite():
            raise NoActivations("the model's activations are not all finite numbers")
        read, counted = read + ids.numel(), counted + len(x)
        for firing in encoder.blocks(x):
            found.scatter_reduce_(0, torch.from_numpy(firing.latents).long(), torch.from_numpy(firing.values), "amax")
    if not counted:
        raise NoActivations("the text holds special tokens or outliers only")
    return found
