"""What no step can do without, as fast as plain torch has it.

``sparse``: x W_enc, the exact k largest of each row, one fused Adam pass over both weight matrices. ``dense``: the five
products of a step that has every latent, and the same pass. ``+bf16``: products in bfloat16, of weights kept in it, for
which nothing is counted. Gradients are made once: the time they would take is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from peer import Setup
from torch import Tensor

from mistudiod.engine.kernels import topk_rows

ROWS = (256, 512, 1024, 2048, 4096)  # in a block; the fastest is taken


class Adam:
    """Both weight matrices with gradients."""

    def __init__(self, setup: Setup) -> None:
        self.weights = [torch.randn(setup.width, setup.d_in) / setup.d_in**0.5 for _ in range(2)]
        for weight in self.weights:
            weight.grad = torch.randn_like(weight) * 1e-3
        self._adam = torch.optim.Adam(self.weights, lr=1e-6, fused=True)
        self._adam.step()

    def step(self) -> None:
        self._adam.step()


class Sparse:
    def __init__(self, setup: Setup, first: Tensor, dtype: torch.dtype) -> None:
        self.k, self.dtype, self.adam = setup.k, dtype, Adam(setup)
        self.W = self.adam.weights[0].to(dtype).t()  # (d_in, width)
        self.z = torch.empty(min(max(ROWS), len(first)), setup.width, dtype=dtype)
        self.rows = min(ROWS, key=lambda rows: self._seconds(lambda: self._select(first, rows)))

    def _seconds(self, do: Callable[[], None]) -> float:
        do()
        began = time.perf_counter()
        do()
        return time.perf_counter() - began

    def _select(self, x: Tensor, rows: int) -> None:
        for block in x.to(self.dtype).split(min(rows, len(self.z))):
            topk_rows(torch.mm(block, self.W, out=self.z[: len(block)]), self.k)

    def step(self, x: Tensor) -> None:
        self._select(x, self.rows)
        self.adam.step()


class Dense:
    def __init__(self, setup: Setup, dtype: torch.dtype) -> None:
        self.dtype, self.adam = dtype, Adam(setup)
        self.W_enc_T, self.W_dec = (weight.to(dtype) for weight in self.adam.weights)  # (width, d_in)
        self.z = torch.empty(setup.batch, setup.width, dtype=dtype)
        self.x_hat = torch.empty(setup.batch, setup.d_in, dtype=dtype)
        self.grad = torch.empty(setup.width, setup.d_in, dtype=dtype)

    def step(self, x: Tensor) -> None:
        x = x.to(self.dtype)
        torch.mm(x, self.W_enc_T.t(), out=self.z)
        torch.mm(self.z, self.W_dec, out=self.x_hat)
        torch.mm(self.z.t(), self.x_hat, out=self.grad)
        torch.mm(self.x_hat, self.W_dec.t(), out=self.z)
        torch.mm(self.z.t(), x, out=self.grad)
        self.adam.step()


def make(entry: str, setup: Setup, first: Tensor) -> Sparse | Dense:
    kind, _, more = entry.partition("+")
    dtype = torch.bfloat16 if more == "bf16" else torch.float32
    return Sparse(setup, first, dtype) if kind == "sparse" else Dense(setup, dtype)
