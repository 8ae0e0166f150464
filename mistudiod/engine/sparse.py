"""The step of an autoencoder with few active latents on a CPU, in the native code of ``c/``.

Pre-activations never exist but for a tile (bf16 products) or a block of rows: what may be among a token's strongest
goes into its list at once. Where the processor multiplies bf16, lists are of bf16 products; candidates are then
computed again in float32, as many as the errors seen leave in doubt: values and choice are those of float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine import native
from mistudiod.engine.kernels import Active, block_elements
from mistudiod.engine.native import Library, Lists

PAIRS = 16  # bf16 pairs are padded to a multiple of so many
PANEL, PIECE = 64, 64  # COLUMNS in c/candidates.c, PIECE in c/rebuild.c
SPARE = 16  # candidates beyond those that are kept, at least; their share is SPARE_SHARE
SPARE_SHARE = 0.25
LIST_BYTES = 16 << 20  # of the lists of tokens that are treated at once
MOST_CHOSEN = 8192  # latents of a token: its candidates are on a stack
BF16_FROM = 64  # inputs: narrower ones are multiplied in float32
DOUBT_SHARE = 0.25  # more than the k n best of a batch that are computed again


@dataclass(frozen=True)
class Inputs:
    """What the encoder multiplies."""

    x: Tensor  # (tokens, d_in) float32
    halves: Tensor | None  # (tokens, pairs), two bf16 numbers in each int32


@dataclass(frozen=True)
class Entries:
    """Those of active latents that fire, in order of latent: of latent j, edges[j] to edges[j + 1]. All int32."""

    order: Tensor  # (n,) positions among the active
    owners: Tensor  # (n,) tokens
    edges: Tensor  # (d_sae + 1,)


@dataclass(frozen=True)
class WeightGrads:
    """Where gradients of the weights are written."""

    W_enc_T: Tensor  # (d_sae, d_in)
    b_enc: Tensor  # (d_sae,)
    W_dec: Tensor  # (d_sae, d_out)
    squares: Tensor  # (d_sae,), the squared norm of a latent's three
    silent: Tensor  # (d_sae,) uint8, 1 where a latent's rows are zero and stay untouched while it does not fire


class SparseStep:
    """Its pieces, in memory that the next step uses again."""

    def __init__(self, library: Library, in_bf16: bool) -> None:
        self.call, self._in_bf16 = library.call, in_bf16
        self._memory: dict[str, Tensor] = {}
        self.unsure = 0  # tokens so far of which an active latent may have been missed, within the error of bf16

    def inputs(self, x: Tensor, b_dec: Tensor | None) -> Inputs:
        """x (tokens, d_in) without b_dec."""
        x = x.contiguous()
        centred = x if b_dec is None else self._buffer("centred", x.shape)
        halves, pairs = None, _rounded((x.shape[1] + 1) // 2, PAIRS)
        if self._in_bf16:
            halves = self._buffer("halves", (len(x), pairs), torch.int32)
        self.call("centre", x, b_dec, len(x), x.shape[1], centred, halves, 2 * pairs)
        return Inputs(centred, halves)

    def strongest(self, inputs: Inputs, W_enc_T: Tensor, b_enc: Tensor, k: int) -> Active:
        """The k strongest latents of each token."""
        tokens, d = inputs.x.shape
        values, latents = torch.empty(tokens, k), torch.empty(tokens, k, dtype=torch.int32)
        keep, cap = _places(k, len(W_enc_T))
        rows = max(PANEL, LIST_BYTES // (8 * cap))
        for start in range(0, tokens, rows):
            part = slice(start, min(start + rows, tokens))
            lists, _held = self._candidates(inputs, part, W_enc_T, b_enc, keep, cap)
            exact = inputs.x[part], len(inputs.x[part]), None if inputs.halves is None else W_enc_T, b_enc, d, k
            self.unsure += self.call("strongest", *exact, lists, values[part], latents[part])
        return Active(values.flatten(), latents.flatten(), torch.arange(0, tokens * k + 1, k, dtype=torch.int32))

    def strongest_of_batch(self, inputs: Inputs, W_enc_T: Tensor, b_enc: Tensor, k: int, most: int) -> Active:
        """The k n largest entries of the batch of n tokens, of which no token has more than ``most``."""
        tokens, d = inputs.x.shape
        wanted, most = tokens * k, min(most, len(W_enc_T))
        keep, cap = _places(most, len(W_enc_T))
        lists, _held = self._candidates(inputs, slice(0, tokens), W_enc_T, b_enc, keep, cap)
        keys = self._buffer("keys", (tokens, most), torch.int32)
        if inputs.halves is not None:
            doubtful = min(wanted + math.ceil(DOUBT_SHARE * wanted), tokens * most)
            bound = self.call("kth_key", tokens, most, doubtful, lists, keys)
            self.call("rescore_above", inputs.x, tokens, W_enc_T, b_enc, d, bound, most, lists)
        else:
            self.call("rescore_above", inputs.x, tokens, None, b_enc, d, -(1 << 31), most, lists)
        bound = self.call("kth_key", tokens, most, wanted, lists, keys)
        values, latents = torch.empty(wanted), torch.empty(wanted, dtype=torch.int32)
        starts = torch.empty(tokens + 1, dtype=torch.int32)
        self.call("gather", tokens, bound, wanted, lists, values, latents, starts)
        return Active(values, latents, starts)

    def _candidates(
        self, inputs: Inputs, part: slice, W_enc_T: Tensor, b_enc: Tensor, keep: int, cap: int
    ) -> tuple[Lists, list[Tensor]]:
        """Full lists, and the tensors that they are in."""
        x = inputs.x[part]
        tokens, width = len(x), len(W_enc_T)
        held = [
            self._buffer("list_values", (tokens, cap)),
            self._buffer("list_latents", (tokens, cap), torch.int32),
            self._buffer("list_counts", (tokens,), torch.int32),
            self._buffer("list_least", (tokens,)),
        ]
        if inputs.halves is not None:
            halves = inputs.halves[part]
            pairs = halves.shape[1]
            panels = self._buffer("panels", (torch.get_num_threads() * PANEL * pairs,), torch.int32)
            lists = _lists(held, cap, keep)
            self.call("candidates", halves, tokens, pairs, W_enc_T, b_enc, width, x.shape[1], lists, panels)
            return lists, held
        rows = block_elements(width, x.device) // width
        block = self._buffer("block", (min(rows, tokens) * width,))
        for start in range(0, tokens, rows):
            some = x[start : start + rows]
            z = torch.addmm(b_enc, some, W_enc_T.t(), out=block[: len(some) * width].view(len(some), width))
            self.call("scan", z, len(some), width, _lists([one[start:] for one in held], cap, keep))
        return _lists(held, cap, keep), held

    def variance(self, y: Tensor) -> float:
        """sum ||y - mean||^2 over the batch y (tokens, d)."""
        squares = torch.empty(len(y))
        self.call("squares_about", y, self.column_sums(y).div_(len(y)), *y.shape, squares)
        return _total(squares)

    def column_sums(self, table: Tensor) -> Tensor:
        """(d,), sums over the rows of table (tokens, d)."""
        tokens, d = table.shape
        pieces = self._buffer("pieces", (math.ceil(tokens / PIECE), d))
        total, sums = torch.empty(d, dtype=torch.float64), torch.empty(d)
        self.call("column_sums", table, tokens, d, pieces, total, sums)
        return sums

    def decode(
        self,
        active: Active,
        W_dec: Tensor,
        base: Tensor | None,
        y: Tensor | None,
        into: Tensor,
        add: bool = False,
        back: float = 0.0,
    ) -> float:
        """Write y_hat - y, where y_hat = base + a sum of rows of W_dec (+ what is there, with ``add``).

        Returns the sum of its squares; keeps the gradients of the values, where ``back`` times it is that of y_hat.
        """
        squares = self._buffer("squares", (len(into),))
        of = *active, len(into), W_dec, base, y, into.shape[1], int(add), back
        self.call("decode", *of, into, squares, self._buffer("value_grads", active.values.shape))
        return _total(squares)

    def undo_level(
        self, active: Active, W_dec: Tensor, span: slice, gradient: Tensor, back: float, missing: Tensor
    ) -> float:
        """The way back through the latents ``span``: their value gradients, where that of y_hat is ``back`` gradient.

        Takes from ``missing`` (y_hat - y) what they added; returns the sum of its squares then.
        """
        squares = self._buffer("squares", (len(missing),))
        of = *active, len(missing), W_dec, missing.shape[1], span.start, span.stop, back
        self.call("undo_level", *of, gradient, missing, squares, self._buffer("value_grads", active.values.shape))
        return _total(squares)

    def by_latent(self, active: Active, d_sae: int) -> Entries:
        shape = active.values.shape
        order, owners = self._buffer("order", shape, torch.int32), self._buffer("owners", shape, torch.int32)
        edges = self._buffer("edges", (d_sae + 1,), torch.int32)
        self.call("by_latent", *active, len(active.starts) - 1, d_sae, order, owners, edges)
        return Entries(order, owners, edges)

    def weight_grads(
        self,
        active: Active,
        entries: Entries,
        span: slice,
        x: Tensor,
        gradient: Tensor,
        back: float,
        W_dec: Tensor,
        into: WeightGrads,
    ) -> None:
        """Of the latents ``span``, where ``back`` times ``gradient`` is that of y_hat.

        W_dec's has no part along its rows, which have norm 1. The gradients of the values are those kept.
        """
        d_in, d_out, tokens = x.shape[1], gradient.shape[1], len(x)
        rows = self._buffer("rows", (torch.get_num_threads(), d_in + d_out + 2 * tokens))
        value_grads = self._buffer("value_grads", active.values.shape)
        of = active.values, value_grads, entries.order, entries.owners, entries.edges, span.start, span.stop
        out = into.W_enc_T, into.b_enc, into.W_dec, into.squares, into.silent
        self.call("weight_grads", *of, x, d_in, gradient, d_out, back, W_dec, *out, rows, tokens)

    def rebuild(
        self, x: Tensor, y: Tensor, weights: dict[str, Tensor], k: int, back: float, grads: dict[str, Tensor]
    ) -> float:
        """Rebuild y (tokens, d_out) from the k strongest latents of x, without b_dec; the squared error.

        weights and ``grads``, which are written, are W_enc_T, b_enc and W_dec; ``back`` times the error is the gradient
        of y_hat.
        """
        W_enc_T, b_enc, W_dec = weights.values()
        latents = len(b_enc)
        inputs = self.inputs(x, None)
        active = self.strongest(inputs, W_enc_T, b_enc, k)
        error = self._buffer("error", y.shape)
        squared = self.decode(active, W_dec, None, y, error, back=back)
        notes = torch.empty(latents), torch.zeros(latents, dtype=torch.uint8)
        into = WeightGrads(grads["W_enc_T"], grads["b_enc"], grads["W_dec"], *notes)
        entries = self.by_latent(active, latents)
        self.weight_grads(active, entries, slice(0, latents), inputs.x, error, back, W_dec, into)
        return squared

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        size = math.prod(shape)
        known = self._memory.get(name)
        if known is None or known.numel() < size:
            self._memory[name] = known = native.in_large_pages(torch.empty(size, dtype=dtype))
        return known[:size].view(shape)


def sparse_step(W: Tensor, most: int) -> SparseStep | None:
    """For weights like W (d_sae, d_in) and at most ``most`` latents of a token; None where plain torch is to do it."""
    library = native.library() if W.device.type == "cpu" and W.dtype == torch.float32 and most < MOST_CHOSEN else None
    return None if library is None else SparseStep(library, library.has_bf16 and W.shape[1] >= BF16_FROM)


def _places(k: int, width: int) -> tuple[int, int]:
    """How many candidates of a token are kept, and the places of its list."""
    keep = min(width, k + max(SPARE, math.ceil(SPARE_SHARE * k)))
    return keep, _rounded(keep + keep // 2 + 128, 16)


def _lists(held: Sequence[Tensor], cap: int, keep: int) -> Lists:
    return Lists(*(one.data_ptr() for one in held), cap, keep)


def _rounded(number: int, to: int) -> int:
    return -(-number // to) * to


def _total(squares: Tensor) -> float:
    return float(squares.sum(dtype=torch.float64))
