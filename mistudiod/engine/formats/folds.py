"""What is folded into the weights on import, exact in real arithmetic: afterwards no such step is left to forget."""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.rules import GatedRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import spans


def fold_scale(sae: SparseAutoencoder, factor: float) -> None:
    """The SAE was to read x · factor, and what it rebuilt to be divided by it. Latents stay as they are."""
    sae.W_enc *= factor
    sae.W_dec /= factor
    sae.b_dec /= factor


def fold_whitening(sae: SparseAutoencoder, mean: Tensor, matrix: Tensor, inverse: Tensor) -> None:
    """The SAE was to read (x - mean) matrix, and what it rebuilt to become y inverse + mean."""
    mean, matrix, inverse = (one.double() for one in (mean, matrix, inverse))
    for latents in spans(sae.d_sae, 8 * sae.d_in):
        columns = matrix @ sae.W_enc[:, latents].double()
        if not sae.centred:
            shift = (mean @ columns).float()
            if isinstance(sae.rule, GatedRule):
                sae.rule.b_gate[latents] -= shift
                sae.rule.b_mag[latents] -= shift * sae.rule.r_mag[latents].exp()
                sae.b_enc = sae.rule.b_gate
            else:
                sae.b_enc[latents] -= shift
        sae.W_enc[:, latents] = columns.float()
        sae.W_dec[latents] = (sae.W_dec[latents].double() @ inverse).float()
    sae.b_dec = (sae.b_dec.double() @ inverse + mean).float()


@torch.no_grad()
def fold_centre(W_enc: Tensor, b_enc: Tensor, centre: Tensor) -> Tensor:
    """The biases when ``centre`` (d_in,) is no longer subtracted from what W_enc (d_in, d_sae) reads: (d_sae,)."""
    return b_enc - centre @ W_enc
