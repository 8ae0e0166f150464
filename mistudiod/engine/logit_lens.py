"""What a feature does to the model's next token by itself: its decoder row, read by the model's last norm and head.

Adding a times a direction to the end of the residual stream changes the logits, in its linear part, by
a / s * W_U (w * direction): w is the last norm's weight, s what the norm divides a token's vector by (its root mean
square; of LayerNorm the standard deviation, and then the direction's mean is taken away as well). Values here are
W_U (w * direction): nats per unit of activation, up to that 1 / s, which is the same for all tokens of the vocabulary.
What later blocks make of the direction is not in them, nor a cap on the logits (Gemma 2).

Neuronpedia and SAEDashboard show W_U direction, without w. That is right for models whose norm's weight was folded into
W_U beforehand, as TransformerLens does by default; for a model as it is stored it is another list of tokens, since no
direction reaches the head but through that weight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine.feature_record import U32, Logits
from mistudiod.engine.kernels import topk_rows
from mistudiod.engine.weights import LazyTensor, lazy_weights
from mistudiod.facts import FAMILIES, Stored, UnknownModel, parse_hook, read_facts
from mistudiod.facts.families import Family
from mistudiod.pages import LOGIT_BINS

SHOWN = 20  # tokens, most promoted and most suppressed
# What is added to the residual stream, and the stream itself; all else has a basis of its own.
_IN_STREAM = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
_TILE_BYTES = {"cpu": 48 << 20, "cuda": 512 << 20}  # of logits: features x vocabulary
_SLICE_BYTES = 16 << 20  # of the head as float32
_FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class LogitLens:
    """``directions`` (d_sae, d_model) are multiplied by ``weight`` (d_model,), the last norm's, and by the head.

    ``head`` lies on the disk, (vocabulary, d_model), and is read a slice at a time: its first ``tokens`` rows count.
    """

    directions: Tensor
    weight: Tensor
    centres: bool
    head: Stored
    tokens: int

    @classmethod
    def of(cls, folder: Path, W_dec: Tensor, hook: str, tokens: int) -> LogitLens | None:
        """The lens for W_dec (d_sae, d_model), whose rows are added at ``hook`` of the model in ``folder``.

        ``tokens``: how many the tokenizer has; embeddings have rows beyond, which nobody ever trained. None where the
        vectors at ``hook`` do not lie in the residual stream, and for a head that is stored quantised. Raises
        UnknownModel, and UnknownHook.
        """
        if parse_hook(hook)[1] not in _IN_STREAM:
            return None
        facts, weights = read_facts(folder), lazy_weights(folder)
        family = FAMILIES[facts.family]
        once = _outside_blocks(family, weights)
        head, norm = (
            once.get(family.head if facts.parts["head"].parameters else family.embedding),
            once.get(family.norm),
        )
        if head is None or norm is None:
            raise UnknownModel(f"{folder} is not complete: its weights lack the last norm or the head")
        if head.stored.dtype not in _FLOATS or head.stored.shape != (facts.vocab_size, facts.d_model):
            return None
        weight = norm[...].float().to(W_dec.device) + family.norm_adds_one
        return cls(W_dec, weight, family.norm_centres, head.stored, min(tokens, facts.vocab_size))

    @torch.no_grad()
    def logits(self, first: int, last: int) -> list[Logits]:
        """Of features ``first`` to ``last`` - 1.

        A tile of features at a time; each reads the whole head, and all of them together no more memory than 100 MB
        (on a GPU 600 MB).
        """
        size = max(1, _TILE_BYTES[self.directions.device.type] // (4 * self.tokens))
        found: list[Logits] = []
        for start in range(first, last, size):
            found += _shown(self._products(start, min(start + size, last)))
        return found

    def _products(self, first: int, last: int) -> Tensor:
        """All logits of some features: (last - first, tokens)."""
        rows = self.directions[first:last].float()
        if self.centres:
            rows = rows - rows.mean(1, keepdim=True)
        rows = rows * self.weight
        products = torch.empty(len(rows), self.tokens, device=rows.device)
        width = rows.shape[1]
        size = max(1, _SLICE_BYTES // (4 * width))
        for start in range(0, self.tokens, size):
            end = min(start + size, self.tokens)
            torch.mm(rows, self._head(start, end).to(rows).t(), out=products[:, start:end])
        return products

    def _head(self, first: int, last: int) -> Tensor:
        row = self.head.size_bytes // self.head.shape[0]
        start, size = self.head.start + first * row, (last - first) * row
        part = replace(self.head, shape=(last - first, self.head.shape[1]), start=start, size_bytes=size)
        return LazyTensor(part)[...]


def _shown(products: Tensor) -> list[Logits]:
    """What is kept of the logits of some features (n, tokens)."""
    top_values, top = _largest(products)
    bottom_values, bottom = _largest(products.neg_())
    bottom_values = -bottom_values
    counts = [
        _histogram(row, row_bottom[0], row_top[0])
        for row, row_bottom, row_top in zip(products.neg_(), bottom_values.tolist(), top_values.tolist(), strict=True)
    ]
    columns = [part.cpu().numpy() for part in (top, top_values, bottom, bottom_values)]
    return [
        Logits(up.astype(np.uint32), ups, down.astype(np.uint32), downs, float(downs[0]), float(ups[0]), count)
        for up, ups, down, downs, count in zip(*columns, counts, strict=True)
    ]


def _largest(products: Tensor) -> tuple[Tensor, Tensor]:
    """Values and columns, the largest first; of equal ones the first column."""
    values, columns = topk_rows(products, min(SHOWN, products.shape[1]))
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _histogram(logits: Tensor, low: float, high: float) -> U32:
    if low == high:  # of a row of zeros
        return np.array([len(logits), *[0] * (LOGIT_BINS - 1)], np.uint32)
    return torch.histc(logits, LOGIT_BINS, low, high).cpu().numpy().astype(np.uint32)


def _outside_blocks(family: Family, weights: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Weights that are in no block by the names that the family has for them, whatever modules they lie in."""
    in_block = re.compile(rf"(?:.*\.)?{family.blocks}\.[0-9]+\..+")
    known = (family.embedding, family.head, family.norm)
    return {
        name: tensor
        for full, tensor in weights.items()
        if not in_block.fullmatch(full)
        for name in known
        if full == name or full.endswith("." + name)
    }
