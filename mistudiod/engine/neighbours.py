"""Which features of an SAE write nearly the same: the nearest rows of its decoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine.feature_record import F32, U32
from mistudiod.engine.kernels import topk_rows

_ROWS, _COLUMNS = 512, 8192  # of a tile: 16 MiB of cosines


@torch.no_grad()
def decoder_neighbours(W_dec: Tensor, count: int = 16, heard: Callable[[int], None] | None = None) -> tuple[U32, F32]:
    """Of every row of W_dec (d_sae, d_out) the ``count`` others with the largest cosine, exactly, the nearest first.

    Indices and cosines, both (d_sae, n), n the smaller of ``count`` and d_sae - 1. A row of zeros has the cosine 0 with
    every other. ``heard`` is told how many rows are done, now and then. Beside W_dec there are never more than a few
    tiles in memory.
    """
    d_sae = len(W_dec)
    n = min(count, d_sae - 1)
    indices, cosines = np.zeros((d_sae, n), np.uint32), np.zeros((d_sae, n), np.float32)
    norm = torch.linalg.vector_norm(W_dec, dim=1)
    inverse = torch.where(norm > 0, 1 / norm, 0.0)
    for start in range(0, d_sae if n else 0, _ROWS):
        end = min(start + _ROWS, d_sae)
        found, where = _nearest(W_dec, inverse, start, end, n)
        indices[start:end], cosines[start:end] = where.cpu().numpy(), found.clamp(-1, 1).cpu().numpy()
        if heard:
            heard(end)
    return indices, cosines


def _nearest(W_dec: Tensor, inverse: Tensor, start: int, end: int, n: int) -> tuple[Tensor, Tensor]:
    """Cosines and indices (end - start, n) of rows ``start`` to ``end`` - 1."""
    rows = W_dec[start:end] * inverse[start:end, None]
    best = torch.full((end - start, 0), 0.0, device=W_dec.device)
    where = torch.zeros((end - start, 0), dtype=torch.int64, device=W_dec.device)
    for first in range(0, len(W_dec), _COLUMNS):
        last = min(first + _COLUMNS, len(W_dec))
        tile = torch.mm(rows, W_dec[first:last].t()).mul_(inverse[first:last])
        itself = torch.arange(start, end, device=W_dec.device)
        itself = itself[(itself >= first) & (itself < last)]
        tile[itself - start, itself - first] = -torch.inf
        values, columns = topk_rows(tile, min(n, last - first))
        best, where = torch.cat([best, values], dim=1), torch.cat([where, columns + first], dim=1)
        where, order = where.sort(dim=1)  # of equal ones the first comes first
        best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
        best, where = best[:, :n], where.gather(1, order)[:, :n]
    return best, where
