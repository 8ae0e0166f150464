"""Weights of an SAE out of a safetensors file and into one, a stretch of rows at a time.

No second copy of a matrix exists while it is turned, widened to float32 or scaled, nor one on its way to the disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.scratch import empty, let_go
from mistudiod.engine.weights import LazyTensor
from mistudiod.facts import Stored, read_header

STRETCH_BYTES = 4 << 20
MOST_HEADER_BYTES = 1 << 20  # an SAE has a dozen tensors; to parse what the format allows takes a gigabyte
_FLOATS = ("F16", "BF16", "F32", "F64")


class TensorFile:
    """The tensors of a safetensors file, its header checked, none of them read yet. Raises ValueError when damaged."""

    def __init__(self, path: Path, called: str | None = None) -> None:
        self.called = called or str(path)  # what messages call it
        self.stored = read_header(path, MOST_HEADER_BYTES)

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def shape(self, name: str) -> tuple[int, ...]:
        """As it is stored."""
        return self._of(name).shape

    def take(
        self,
        name: str,
        shape: Sequence[int],
        turned: bool = False,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """A tensor as float32, contiguous; ``turned``: a matrix that is stored the other way round than ``shape``.

        Raises ValueError when it is not there, of another shape, no floating-point numbers, or one of them not finite.
        """
        stored, expected = self._of(name), tuple(reversed(shape) if turned else shape)
        if stored.shape != expected:
            raise ValueError(f"{self.called} holds {name} of shape {stored.shape}, and {expected} is expected")
        if stored.dtype not in _FLOATS or 0 in stored.shape:
            raise ValueError(f"{self.called} holds a {name} that is not all finite floating-point numbers")
        made = empty(shape, device)
        into = made.t() if turned else made
        if not into.ndim:
            return made.copy_(self._finite(name, LazyTensor(stored)[...]))
        for rows, block in _stretches(stored):
            into[rows] = self._finite(name, block)
            let_go(made)
        return made

    def number(self, name: str) -> float:
        """The only item of a tensor, of whatever type; ValueError when it has more, or is not finite."""
        stored = self._of(name)
        if stored.items != 1:
            raise ValueError(f"{self.called} holds {name} of shape {stored.shape}, and one number is expected")
        return self._finite(name, LazyTensor(stored)[...]).item()

    def _of(self, name: str) -> Stored:
        if name not in self.stored:
            held = ", ".join(sorted(self.stored)[:12]) or "nothing"
            raise ValueError(f"{self.called} has no {name}: it holds {held[:300]}")
        return self.stored[name]

    def _finite(self, name: str, block: Tensor) -> Tensor:
        block = block.float()
        low, high = block.aminmax()  # and no mask as large as the block
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(f"{self.called} holds a {name} that is not all finite floating-point numbers")
        return block


def _stretches(stored: Stored) -> Iterator[tuple[slice, Tensor]]:
    each = stored.size_bytes // stored.shape[0]
    for rows in spans(stored.shape[0], each):
        shape = (rows.stop - rows.start, *stored.shape[1:])
        part = replace(stored, shape=shape, start=stored.start + rows.start * each, size_bytes=shape[0] * each)
        yield rows, LazyTensor(part)[...]


def spans(rows: int, bytes_each: int) -> Iterator[slice]:
    """Stretches of rows, each of STRETCH_BYTES or one row."""
    step = max(1, STRETCH_BYTES // max(bytes_each, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def times(matrix: Tensor, factor: Tensor | float) -> None:
    """Multiply a matrix (n, m) in place by a number, or by what is (n, 1) or (m,)."""
    for rows in spans(len(matrix), 4 * matrix.shape[1]):
        matrix[rows] *= factor[rows] if isinstance(factor, Tensor) and factor.ndim == 2 else factor
        let_go(matrix)


def row_norms(matrix: Tensor) -> Tensor:
    """The norm of each row of a matrix (n, m): (n,)."""
    norms = matrix.new_empty(len(matrix))
    for rows in spans(len(matrix), 4 * matrix.shape[1]):
        norms[rows] = torch.linalg.vector_norm(matrix[rows], dim=1)
        let_go(matrix)
    return norms


@dataclass(frozen=True)
class Written:
    """A tensor to write: ``change(block, rows)`` is made of each stretch of its rows, of the block's own shape."""

    tensor: Tensor
    change: Callable[[Tensor, slice], Tensor] = lambda block, _rows: block

    def blocks(self) -> Iterator[Tensor]:
        """In order, float32, contiguous, on the CPU."""
        if not self.tensor.ndim:
            yield _plain(self.change(self.tensor, slice(None)))
            return
        for rows in spans(len(self.tensor), 4 * self.tensor[0].numel()):
            yield _plain(self.change(self.tensor[rows], rows))
            let_go(self.tensor)


def write_tensors(path: Path, tensors: Mapping[str, Written]) -> None:
    """A safetensors file of them, all float32, by name."""
    names, end, header = sorted(tensors), 0, {}
    for name in names:
        tensor, start = tensors[name].tensor, end
        end += 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that data are aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            for block in tensors[name].blocks():
                file.write(memoryview(block.numpy()))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()
