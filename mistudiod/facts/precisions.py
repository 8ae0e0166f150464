"""How many bytes weights take at each precision: arithmetic on shapes, exact to the byte.

Only the matrices of the blocks are quantised; embeddings, norms, biases and the head stay in bf16. Measured against
bitsandbytes 0.50 in ``tests/test_precision.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "nf4")
_PLAIN_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_BLOCK = 64  # weights that share one absmax in nf4
_NESTED_BLOCK = 256  # of these that share one float32, once they are quantised themselves
_NF4_TABLES_BYTES = 16 * 4 + 256 * 4 + 4  # of each matrix: both code tables and the mean of its absmax


@dataclass(frozen=True)
class Weight:
    """A parameter of the model as it is meant, however it is stored."""

    items: int
    rows: int | None  # outputs of a linear layer of a block, which can be quantised; None for all else
    stored_bytes: int  # with what a quantised one needs beside it


@dataclass(frozen=True)
class Part:
    """A part of a model."""

    parameters: int
    weight_bytes: dict[str, int]  # by precision, those in which it can be loaded


def part(weights: Iterable[Weight], quantized: str | None) -> Part:
    """What ``weights`` are together; those ``quantized`` already are loaded as they are stored and in no other way."""
    weights = list(weights)
    items = sum(weight.items for weight in weights)
    if quantized:
        return Part(items, {quantized: sum(weight.stored_bytes for weight in weights)})
    plain = {precision: items * size for precision, size in _PLAIN_BYTES.items()}
    return Part(items, plain | {"int8": sum(map(_int8_bytes, weights)), "nf4": sum(map(_nf4_bytes, weights))})


def _int8_bytes(weight: Weight) -> int:
    """One byte a weight and a float32 scale a row."""
    return 2 * weight.items if weight.rows is None else weight.items + 4 * weight.rows


def _nf4_bytes(weight: Weight) -> int:
    """Half a byte a weight and a byte a block of them, whose own scales are float32; and the tables."""
    if weight.rows is None:
        return 2 * weight.items
    blocks = -(-weight.items // _BLOCK)
    return -(-weight.items // 2) + blocks + 4 * -(-blocks // _NESTED_BLOCK) + _NF4_TABLES_BYTES
