"""What some SAEs do to each activation before they read it, and undo in what they rebuild: SAELens' names and formulas.

None of it can be folded into weights, for it is another number on every token.
"""

from __future__ import annotations

import torch
from torch import Tensor

NORMS = ("none", "layer_norm", "constant_norm_rescale")
EPSILON = 1e-5  # added to the deviation of layer_norm when it divides, not when it multiplies


def normalized(norm: str, x: Tensor) -> Tensor:
    """x (tokens, d_in) as the encoder takes it.

    layer_norm: less the mean over d_in, over the unbiased deviation. constant_norm_rescale: the norm is sqrt(d_in).
    """
    if norm == "none":
        return x
    if norm == "layer_norm":
        centred = x - x.mean(dim=1, keepdim=True)
        return centred.div_(scale(norm, x) + EPSILON)
    return x / scale(norm, x)


def scale(norm: str, x: Tensor) -> Tensor:
    """By what a direction of the decoder is multiplied on each token of x (tokens, d_in): (tokens, 1)."""
    if norm == "none":
        return x.new_ones(len(x), 1)
    if norm == "layer_norm":
        return x.std(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True) / x.shape[1] ** 0.5
    return norms.clamp_min(torch.finfo(x.dtype).tiny)  # a token of zeros is read as zeros


def restored(norm: str, rebuilt: Tensor, x: Tensor) -> Tensor:
    """What was rebuilt of a normalized x, (tokens, d_in) both, as the model has it."""
    if norm == "none":
        return rebuilt
    rebuilt = rebuilt * scale(norm, x)
    return rebuilt + x.mean(dim=1, keepdim=True) if norm == "layer_norm" else rebuilt
