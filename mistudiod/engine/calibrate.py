"""One threshold for a whole autoencoder, chosen on held-out text so that as many latents fire as were trained.

The threshold is one of the pre-activations, found exactly and in little memory: a positive float32 number and its bits,
read as a whole number, are in the same order, so two passes that count, first by the upper 16 bits, then by the lower
16 of those that share the right upper ones, find the largest but n of any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.sae import SparseAutoencoder

FLOOR_SHARE = 0.5  # of the threshold that there is: what lies below is counted only when it turns out to matter
_BITS = 16


@torch.no_grad()
def calibrated(sae: SparseAutoencoder, k: float, batches: Callable[[], Iterable[Tensor]]) -> SparseAutoencoder:
    """The SAE, a JumpReLU of one threshold, with that above which k latents of a token fire on average. Exact.

    ``batches`` gives the same activations (tokens, d_in) at every call; it is called twice, once more when the
    threshold that the SAE has is far from the one that is found. That is 0 when fewer than k latents of a token are
    positive. Raises ValueError when there are no tokens.
    """
    assert isinstance(sae.rule, JumpReLURule)
    threshold = 0
    for floor in (FLOOR_SHARE * float(sae.rule.threshold[0]), 0.0):
        above = replace(sae, rule=JumpReLURule(torch.full_like(sae.b_enc, floor)))
        upper, tokens = _counted(above, batches(), None)
        if not tokens:
            raise ValueError("there are no activations to calibrate on")
        fire = round(k * tokens)  # so many are to lie above the threshold
        if fire < int(upper.sum()):
            high, over = _holding(upper, fire)
            lower, _ = _counted(above, batches(), high)
            low, _ = _holding(lower, fire - over)
            threshold = high << _BITS | low
            break
    value = torch.tensor(threshold, dtype=torch.int32).view(torch.float32).item()
    return replace(sae, rule=JumpReLURule(torch.full_like(sae.b_enc, value)))


def _counted(sae: SparseAutoencoder, batches: Iterable[Tensor], high: int | None) -> tuple[Tensor, int]:
    """How many latents that fire have each upper half of their bits, or each lower one where the upper is ``high``.

    Returns the counts (2^16,), int64, on the CPU, and the number of tokens.
    """
    counts, tokens = torch.zeros(1 << _BITS, dtype=torch.int64, device=sae.W_enc.device), 0
    for x in batches:
        tokens += len(x)
        for block in sae.latents(x):
            bits = block[block > 0].view(torch.int32)
            bits = bits >> _BITS if high is None else bits[bits >> _BITS == high] & (1 << _BITS) - 1
            counts += torch.bincount(bits, minlength=1 << _BITS)
    return counts.cpu(), tokens


def _holding(counts: Tensor, fire: int) -> tuple[int, int]:
    """The bin that holds the largest value but ``fire``, and how many lie in the bins above it."""
    above = counts.flip(0).cumsum(0).flip(0) - counts  # in larger bins than each
    bin_ = int((above <= fire).nonzero()[0])
    return bin_, int(above[bin_])
