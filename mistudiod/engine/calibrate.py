"""One threshold for a whole autoencoder, chosen on held-out text so that as many latents fire as were trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.sae import SparseAutoencoder

FLOOR_SHARE = 0.5  # of the threshold that there is: entries below it are looked at only when they turn out to matter


@torch.no_grad()
def calibrated(sae: SparseAutoencoder, k: float, batches: Callable[[], Iterable[Tensor]]) -> SparseAutoencoder:
    """The SAE, a JumpReLU of one threshold, with that above which k latents of a token fire on average. Exact.

    ``batches`` gives the same activations (tokens, d_in) at every call; the threshold that the SAE has is a first
    guess. It is 0 when fewer than k latents of a token are positive.
    """
    assert isinstance(sae.rule, JumpReLURule)
    floor = float(sae.rule.threshold[0]) * FLOOR_SHARE
    while True:
        above, tokens = _above(sae, floor, batches())
        wanted = round(k * tokens)
        if wanted < len(above):  # the largest entry that is not to fire
            floor = float(above.kthvalue(len(above) - wanted).values)
            break
        if floor == 0:
            break
        floor = floor / 4 if floor > 1e-6 else 0.0
    return replace(sae, rule=JumpReLURule(torch.full_like(sae.rule.threshold, floor)))


def _above(sae: SparseAutoencoder, floor: float, batches: Iterable[Tensor]) -> tuple[Tensor, int]:
    """Every pre-activation larger than ``floor``, and the number of tokens."""
    low = replace(sae, rule=JumpReLURule(torch.full_like(sae.b_enc, floor)))
    found, tokens = [sae.b_enc.new_empty(0)], 0
    for x in batches:
        found += [block[block > 0] for block in low.latents(x)]
        tokens += len(x)
    return torch.cat(found), tokens
