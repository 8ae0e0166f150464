"""Activations of tokens → the latents that fire on them, as a list; nothing of (tokens, d_sae) is kept.

Pre-activations exist for a block of rows at a time, by the products of ``SparseAutoencoder.latents``; what fires is
taken out of it at once, on a CPU by the native code of ``c/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine import native
from mistudiod.engine.kernels import block_elements, encode_topk
from mistudiod.engine.native import Library, in_large_pages
from mistudiod.engine.norms import normalized
from mistudiod.engine.rules import GatedRule, JumpReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.sparse import MOST_CHOSEN, SparseStep

MOST_ELEMENTS = 1 << 24  # of a block, on a GPU always: should all of them fire, their list takes 200 MB


@dataclass(frozen=True)
class Firing:
    """Of some tokens the latents that fire, token by token: ``counts`` (tokens,) int64 says how many are whose."""

    counts: NDArray[np.int64]
    latents: NDArray[np.int32]  # (n,), of a token in no particular order
    values: NDArray[np.float32]  # (n,), above 0


class Encoder:
    """An SAE that lists what fires. It uses memory of one block again and again, so it serves one caller at a time."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae, self._buffer = sae, torch.empty(0)
        self._library = native.library() if sae.W_enc.device.type == "cpu" else None
        elements = MOST_ELEMENTS if sae.W_enc.is_cuda else block_elements(sae.d_sae, sae.W_enc.device)
        self.rows = max(1, min(elements, MOST_ELEMENTS) // sae.d_sae)  # tokens of a block
        # of an entry to fire, beside those that are not of one number: the gate
        self._limits = torch.zeros(sae.d_sae, device=sae.W_enc.device)
        if isinstance(sae.rule, JumpReLURule):
            self._limits = sae.rule.threshold.clamp_min(0).contiguous()
        self._step: SparseStep | None = None
        if isinstance(sae.rule, TopKRule) and self._library is not None and sae.rule.k < MOST_CHOSEN:
            self._step = SparseStep(self._library, in_bf16=False)  # in bf16 it would need W_enc a second time, turned

    @torch.no_grad()
    def blocks(self, x: Tensor) -> Iterator[Firing]:
        """Of the tokens x (n, d_in) float32, in order, ``rows`` at a time."""
        for start in range(0, len(x), self.rows):
            block = normalized(self._sae.norm, x[start : start + self.rows])
            yield self._strongest(block) if isinstance(self._sae.rule, TopKRule) else self._above(block)

    def _strongest(self, x: Tensor) -> Firing:
        sae = self._sae
        assert isinstance(sae.rule, TopKRule)
        b_dec, k = sae.b_dec if sae.centred else None, sae.rule.k
        if self._step is not None:
            active = self._step.strongest(self._step.inputs(x, b_dec), sae.W_enc.t(), sae.b_enc, k)
            values, latents = active.values.view(-1, k), active.latents.view(-1, k)
        else:
            values, latents = encode_topk(x, sae.W_enc, sae.b_enc, b_dec, k)
        fires = values > 0
        return _listed(fires.sum(1), latents[fires], values[fires])

    def _above(self, x: Tensor) -> Firing:
        """By the product, of each latent what is above its limit."""
        sae, size = self._sae, len(x) * self._sae.d_sae
        if self._buffer.numel() < size:
            self._buffer = in_large_pages(x.new_empty(size))
        z = self._buffer[:size].view(len(x), sae.d_sae)
        torch.addmm(sae.b_enc, x - sae.b_dec if sae.centred else x, sae.W_enc, out=z)
        if isinstance(sae.rule, GatedRule):  # which of two numbers opens the gate, and the other is the latent
            z = sae.rule.latents(z)
        return _listed(*_taken(z, self._limits, self._library))


def _taken(z: Tensor, limits: Tensor, library: Library | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of z (rows, width) what is above the limits (width,): how many of each row, their columns, and they."""
    if library is None:
        fires = z > limits
        return fires.sum(1), fires.nonzero()[:, 1], z[fires]
    counts = torch.empty(len(z), dtype=torch.int64)
    library.call("count_above", z, *z.shape, limits, counts)
    ends = counts.cumsum(0)
    n = int(ends[-1]) if len(z) else 0
    values, latents = torch.empty(n), torch.empty(n, dtype=torch.int32)
    library.call("take_above", z, *z.shape, limits, ends - counts, values, latents)
    return counts, latents, values


def _listed(counts: Tensor, latents: Tensor, values: Tensor) -> Firing:
    return Firing(counts.cpu().numpy(), latents.int().cpu().numpy(), values.cpu().numpy())
