"""The sparse pieces of a top-k autoencoder: dense encode, exact top-k, sparse decode, sparse weight gradients.

A token activates k of d_sae latents, so past the encoder's one dense product everything costs k, not d_sae. The
(tokens, d_sae) matrix never exists: it is made a block of rows at a time in one buffer that the caller may keep.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 4  # columns in a group of topk_rows; the fastest of 2, 4, 8, 16, 32 for widths 2,048 to 16,384
BLOCK_ELEMENTS = 1 << 22  # of one block of pre-activations: 16 MiB of float32, which a cache holds
BLOCK_ELEMENTS_CUDA = 1 << 26  # there it is launches that cost: 256 MiB
MIN_BLOCK_ROWS = 64
PIECE_ELEMENTS = 1 << 18  # of one piece of a weight gradient on a CPU: 1 MiB of float32


def topk_rows(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row and their columns, in no particular order. Exact.

    Columns are put in groups of four. The k groups with the largest maxima hold k largest values, because every
    value in another group has k group maxima at least as large; so only 4 k candidates a row are left. The k groups
    are found the same way, until few columns are left: some 2.5 times as fast on a CPU as ``torch.topk`` at 16,384.

    z: (rows, width), width >= k. Returns values and int64 columns, both (rows, k). Among equal values any may be
    chosen, as in ``torch.topk``.
    """
    width = z.shape[1]
    groups = width // GROUP
    if width <= 8 * k:
        return z.topk(k, dim=1, sorted=False)
    # column c belongs to group c % groups: the maxima then run along memory
    maxima = z[:, : groups * GROUP].view(len(z), GROUP, groups).amax(1)  # (rows, groups)
    best = topk_rows(maxima, k)[1]
    members = torch.arange(GROUP, device=z.device) * groups
    columns = (best[:, :, None] + members).flatten(1)  # (rows, GROUP k)
    if groups * GROUP < width:  # the last columns are in no group
        rest = torch.arange(groups * GROUP, width, device=z.device).expand(len(z), -1)
        columns = torch.cat([columns, rest], dim=1)
    values, where = z.gather(1, columns).topk(k, dim=1, sorted=False)
    return values, columns.gather(1, where)


def block_elements(width: int, device: torch.device) -> int:
    """Elements of a buffer that holds a block of pre-activations over ``width`` or fewer latents."""
    return max(MIN_BLOCK_ROWS * width, BLOCK_ELEMENTS_CUDA if device.type == "cuda" else BLOCK_ELEMENTS)


def encode_topk(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    b_dec: Tensor | None,
    k: int,
    block_rows: int | None = None,
    buffer: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k largest pre-activations of each token, after ReLU, and their latents.

    x: (tokens, d_in); W_enc: (d_in, d_sae), of any strides; b_dec is subtracted from x unless it is None. Tokens are
    encoded ``block_rows`` at a time, by default as many as ``block_elements`` holds, in ``buffer`` (flat, at least
    ``block_rows`` x d_sae) when one is given. Returns values and int64 latents, both (tokens, k), in no particular
    order; a value of 0 is a latent that does not fire.
    """
    d_sae = W_enc.shape[1]
    rows = block_rows or block_elements(d_sae, x.device) // d_sae
    if buffer is None:
        buffer = x.new_empty(min(rows, len(x)) * d_sae)
    values = x.new_empty(len(x), k)
    indices = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for start in range(0, len(x), rows):
        block = x[start : start + rows]
        if b_dec is not None:
            block = block - b_dec
        z = buffer[: len(block) * d_sae].view(len(block), d_sae)
        torch.addmm(b_enc, block, W_enc, out=z)
        values[start : start + rows], indices[start : start + rows] = topk_rows(z, k)
    return values.relu_(), indices


def decode_topk(values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None = None) -> Tensor:
    """Sum of k rows of W_dec (d_sae, d_in) a token, plus b_dec when given: (tokens, d_in). Differentiable in values."""
    x_hat = F.embedding_bag(indices, W_dec, mode="sum", per_sample_weights=values)
    return x_hat if b_dec is None else x_hat.add_(b_dec)


class Active(NamedTuple):
    """Which latents are active on which tokens: those of token i are entries ``starts[i]`` to ``starts[i + 1]``."""

    values: Tensor  # (n,), not negative; 0 is a latent that does not fire
    latents: Tensor  # (n,) int64
    starts: Tensor  # (tokens + 1,) int64

    def part(self, tokens: slice) -> Active:
        """Those of the tokens ``tokens``, a slice without a step."""
        if tokens.start == 0 and tokens.stop >= len(self.starts) - 1:
            return self
        starts = self.starts[tokens.start : tokens.stop + 1]
        first, last = int(starts[0]), int(starts[-1])
        return Active(self.values[first:last], self.latents[first:last], starts - first)

    def tokens(self) -> Tensor:
        """(n,) int64, the token of each entry."""
        numbers = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return numbers.repeat_interleave(self.starts.diff(), output_size=len(self.latents))


def rows_active(values: Tensor, latents: Tensor) -> Active:
    """Of as many latents for each token: values and latents (tokens, k)."""
    starts = torch.arange(0, latents.numel() + 1, latents.shape[1], device=latents.device)
    return Active(values.flatten(), latents.flatten(), starts)


def decode_entries(active: Active, W_dec: Tensor) -> Tensor:
    """Sum of rows of W_dec (d_sae, d_out) for each token: (tokens, d_out). Differentiable in the values."""
    return F.embedding_bag(
        active.latents,
        W_dec,
        active.starts,
        mode="sum",
        per_sample_weights=active.values,
        include_last_offset=True,
    )


class Entries(NamedTuple):
    """Active entries in order of latent: those of latent j are ``starts[j]`` to ``starts[j + 1]``."""

    order: Tensor  # (n,) positions among the active entries
    tokens: Tensor  # (n,)
    starts: Tensor  # (d_sae + 1,)


def by_latent(active: Active, d_sae: int) -> Entries:
    latents, order = active.latents.sort(stable=True)
    edges = torch.arange(d_sae + 1, device=latents.device)
    return Entries(order, active.tokens()[order], torch.searchsorted(latents, edges))


def sum_by_latent(entries: Entries, weights: Tensor, table: Tensor, out: Tensor, add: bool = False) -> None:
    """out[j] = sum of weights[i, j] table[i] over the tokens i on which latent j is active; with ``add``, out[j] +=.

    This is both weight gradients: weights (n,) are the values and table the gradient of the reconstruction, or
    weights are the gradients of the values and table the centred input. table: (tokens, d_in); out: (d_sae, d_in).
    On a CPU it goes piece by piece, so that pieces, not the whole gradient, are allocated anew.
    """
    d_sae = len(out)
    sorted_weights = weights[entries.order]
    rows = _piece_rows(out)
    edges = entries.starts[::rows].tolist() if rows < d_sae else [0]
    edges.append(len(entries.tokens))
    for piece, first in enumerate(range(0, d_sae, rows)):
        start, end = edges[piece], edges[piece + 1]
        sums = F.embedding_bag(
            entries.tokens[start:end],
            table,
            entries.starts[first : first + rows + 1] - start,
            mode="sum",
            per_sample_weights=sorted_weights[start:end],
            include_last_offset=True,
        )
        out[first : first + rows].add_(sums) if add else out[first : first + rows].copy_(sums)


def bias_by_latent(entries: Entries, weights: Tensor, out: Tensor, add: bool = False) -> None:
    """out[j] = sum of weights[i, j] over the tokens i on which latent j is active; with ``add``, out[j] +=. (d_sae,)

    By a bag of numbers and not by ``index_add_``, whose order of summation varies on a GPU.
    """
    sums = F.embedding_bag(entries.order, weights.view(-1, 1), entries.starts, mode="sum", include_last_offset=True)
    out.add_(sums.squeeze(1)) if add else out.copy_(sums.squeeze(1))


def remove_along_rows(gradient: Tensor, W: Tensor) -> None:
    """Take from each row of ``gradient`` its component along the same, unit, row of W. In place."""
    rows = _piece_rows(W)
    for first in range(0, len(W), rows):
        piece, unit = gradient[first : first + rows], W[first : first + rows]
        piece.addcmul_(unit, (piece * unit).sum(1, keepdim=True), value=-1)


def _piece_rows(W: Tensor) -> int:
    """Rows of a weight matrix to treat at a time: all of them on a GPU, where there is no cache to stay in."""
    return len(W) if W.is_cuda else max(1, PIECE_ELEMENTS // W.shape[1])


class Path:
    """A forward pass through active latents, and the way back."""

    def __init__(self, active: Active, W_dec: Tensor) -> None:
        self.active = active._replace(values=active.values.detach().requires_grad_())
        with torch.enable_grad():
            self.sums = decode_entries(self.active, W_dec)  # (tokens, d_out), without b_dec

    def backward(
        self, gradient: Tensor, centred: Tensor, W_enc_T: Tensor, b_enc: Tensor, W_dec: Tensor, add: bool
    ) -> None:
        """Write the weights' gradients into the last three, or add them, given the gradient of ``sums``."""
        (value_grads,) = torch.autograd.grad(self.sums, self.active.values, gradient)
        values = self.active.values.detach()
        value_grads.masked_fill_(values <= 0, 0)
        entries = by_latent(self.active, len(W_dec))
        sum_by_latent(entries, value_grads, centred, W_enc_T, add)
        bias_by_latent(entries, value_grads, b_enc, add)
        sum_by_latent(entries, values, gradient, W_dec, add)
