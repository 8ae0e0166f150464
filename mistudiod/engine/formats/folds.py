"""What is folded into the weights, exact in real arithmetic: on import, so that no such step is left to forget, and on
export, for a layout that has another one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.rules import GatedRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.scratch import let_go
from mistudiod.engine.tensor_files import spans, times

_CENTRED = "This layout subtracts b_dec from what is read, and the SAE did not: b_enc has made up for it."
_NOT_CENTRED = "The SAE subtracts b_dec from what it reads, and this layout does not: it is folded into b_enc."


def fold_scale(sae: SparseAutoencoder, factor: float) -> None:
    """The SAE was to read x · factor, and what it rebuilt to be divided by it. Latents stay as they are."""
    times(sae.W_enc, factor)
    times(sae.W_dec, 1 / factor)
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
        let_go(sae.W_enc)
        let_go(sae.W_dec)
    sae.b_dec = (sae.b_dec.double() @ inverse + mean).float()


@torch.no_grad()
def fold_centre(W_enc: Tensor, b_enc: Tensor, centre: Tensor) -> Tensor:
    """The biases when ``centre`` (d_in,) is no longer subtracted from what W_enc (d_in, d_sae) reads: (d_sae,)."""
    shift = torch.zeros_like(b_enc)
    for rows in spans(len(W_enc), 4 * W_enc.shape[1]):
        shift += centre[rows] @ W_enc[rows]
        let_go(W_enc)
    return b_enc - shift


@torch.no_grad()
def biases(sae: SparseAutoencoder, centred: bool) -> tuple[Tensor, Tensor | None, list[str]]:
    """Of an SAE the biases b_enc (d_sae,), of a gated one b_mag too, as they are when b_dec is subtracted from what it
    reads (``centred``), or is not; and what was done for it, in a sentence.
    """
    rule = sae.rule
    magnitude = rule.b_mag if isinstance(rule, GatedRule) else None
    if sae.centred is centred:
        return sae.b_enc, magnitude, []
    sign = 1.0 if centred else -1.0
    b_dec, shift = sae.b_dec.double(), torch.empty_like(sae.b_enc)
    for latents in spans(sae.d_sae, 8 * sae.d_in):
        shift[latents] = (sign * (b_dec @ sae.W_enc[:, latents].double())).float()
    if isinstance(rule, GatedRule):
        magnitude = rule.b_mag + shift * rule.r_mag.exp()
    return sae.b_enc + shift, magnitude, [_CENTRED if centred else _NOT_CENTRED]
