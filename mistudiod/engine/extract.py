"""One pass over a text: which latents of an SAE fire where, and how strongly, into shards on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.encode import Encoder
from mistudiod.engine.harvest import Block, Harvest, NoActivations
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.shards import SHARD_ENTRIES, Entries, Shards

Heard = Callable[[int], None]  # is told how many places are done, between batches
Closed = Callable[[Entries], None]  # is told what a new shard holds


@dataclass(frozen=True)
class Text:
    """What is read: the windows ``numbers`` through ``harvest``, of which the SAE reads ``columns``."""

    harvest: Harvest
    numbers: NDArray[np.int64]
    columns: slice

    @property
    def context(self) -> int:
        return self.harvest.windows.context

    @property
    def places(self) -> int:
        return len(self.numbers) * self.context

    def batch_places(self, batch: int, block: Block) -> NDArray[np.uint32]:
        """Of the tokens of a batch, row x context + position."""
        start = batch * self.harvest.lm_windows
        where = block.where.numpy()
        rows = start + np.searchsorted(self.numbers[start : start + self.harvest.lm_windows], where // self.context)
        return (rows * self.context + where % self.context).astype(np.uint32)


def spread(windows: int, context: int, tokens: int) -> NDArray[np.int64]:
    """Numbers of evenly spread windows of the first ``windows``, as many as hold ``tokens``."""
    count = min(windows, -(-tokens // context))
    return np.linspace(0, windows - 1, count).round().astype(np.int64)


def read_text(
    text: Text, sae: SparseAutoencoder, shards: Shards, heard: Heard, closed: Closed, most: int = SHARD_ENTRIES
) -> None:
    """Go on from the latest shard to the end of the text; what ``heard`` and ``closed`` raise leaves whole shards.

    A shard is closed after the block of tokens that brings it to ``most`` entries, so shards are the same however
    often the reading is cut off. Raises NoActivations when the model or the SAE gives numbers that are not finite.
    """
    encoder, began = Encoder(sae), time.monotonic()
    last = shards.whole[-1] if shards.whole else None
    batch, skip = (last.batch, last.skip) if last else (0, 0)
    size, outliers = text.harvest.lm_windows, np.empty(0, np.uint32)  # those in no shard yet

    def close(end: int, batch: int, skip: int) -> None:
        nonlocal began, outliers
        in_it = int((outliers < end).sum())
        closed(shards.close(end, batch, skip, in_it, time.monotonic() - began))
        outliers, began = outliers[in_it:], time.monotonic()

    while batch * size < len(text.numbers):
        heard(max(batch * size * text.context, shards.end))
        (block,) = text.harvest.blocks(text.numbers[batch * size : (batch + 1) * size])
        places, beyond = text.batch_places(batch, block), text.harvest.beyond(block.values)
        counting = ~beyond.cpu().numpy()
        outliers = np.concatenate([outliers, places[~counting & (places >= shards.end)]])
        places, x = places[counting], block.values[~beyond][:, text.columns].float()
        if not x.sum().isfinite():
            raise NoActivations("the model's activations are not all finite numbers")
        for firing in encoder.blocks(x[skip:]):
            if not np.isfinite(firing.values.max(initial=0)):
                raise NoActivations("what the SAE makes of the activations are not all finite numbers: train it again")
            shards.add(places[skip : skip + len(firing.counts)], firing)
            skip += len(firing.counts)
            if shards.gathered >= most and skip < len(places):
                close(int(places[skip - 1]) + 1, batch, skip)
        batch, skip = batch + 1, 0
        end = min(batch * size * text.context, text.places)
        if shards.gathered >= most or end == text.places:
            close(end, batch, 0)
    heard(text.places)
