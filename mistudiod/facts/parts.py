"""The parts of a model: what is there once (embeddings, the last norm, the head), and what is there in every block."""

from __future__ import annotations

import re
from itertools import chain

from mistudiod.facts.families import Family
from mistudiod.facts.precisions import Part, Weight, part
from mistudiod.facts.quantized import Unpacked

PARTS = ("embedding", "block", "norm", "head")


def split(
    names: Family, weights: dict[str, Unpacked], n_layers: int, quantized: str | None
) -> tuple[dict[str, Part], Part]:
    """The parts ``embedding``, ``block`` (the largest), ``norm`` and ``head`` of a model, and the whole of it."""
    in_block = re.compile(rf"(?:.*\.)?{names.blocks}\.([0-9]+)\..+")
    once: dict[str, list[Weight]] = {"embedding": [], "norm": [], "head": []}
    blocks: dict[str, list[Weight]] = {str(layer): [] for layer in range(n_layers)}
    for name, weight in weights.items():
        if block := in_block.fullmatch(name):
            entry = Weight(weight.items, _rows(names, weight), weight.stored_bytes)
            blocks.setdefault(block[1], []).append(entry)
        else:
            once[_place(names, name, weight)].append(Weight(weight.items, None, weight.stored_bytes))
    parts = {name: part(entries, quantized) for name, entries in once.items()}
    largest = max((part(entries, quantized) for entries in blocks.values()), key=lambda block: block.parameters)
    everything = chain.from_iterable((*once.values(), *blocks.values()))
    return parts | {"block": largest}, part(everything, quantized)


def _rows(names: Family, weight: Unpacked) -> int | None:
    """The outputs of a weight of a block when it is a matrix."""
    if weight.shape is None or len(weight.shape) != 2:
        return None
    return weight.shape[0 if names.rows_first else 1]


def _place(names: Family, name: str, weight: Unpacked) -> str:
    """The part of a weight outside the blocks."""
    if name == names.head or name.endswith("." + names.head):
        return "head"
    return "embedding" if weight.shape is None or len(weight.shape) == 2 else "norm"
