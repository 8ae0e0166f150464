"""Windows of tokens → shuffled batches of activations, in bounded memory and exactly resumable.

``mistudiod.mixing`` says how tokens are mixed: chunks of windows, whose tokens are dealt out over the groups to come.
Each pass over the windows has an order of its own. So a position is two numbers, chunks harvested and tokens given of
the latest group, and going on from one harvests ``parts`` chunks at most and gives the same batches, bit for bit. What
a group has left when it no longer fills a batch is taken first into the next batch: no token is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.centre import centre, scale_of
from mistudiod.engine.harvest import Block, Harvest, NoActivations
from mistudiod.engine.ring import Ring
from mistudiod.mixing import BUFFER_TOKENS, mixing

State = dict[str, int]
_BEGINNING: State = {"chunks": 0, "offset": 0, "text_tokens": 0, "outliers": 0}
_PASS, _CHUNK, _GROUP, _SAMPLE = range(4)  # what a generator of random numbers is for


class ActivationBatches:
    """An endless iterator over batches (batch_tokens, d_in) float32 of the first ``train_windows`` windows.

    ``where`` says of each row of the latest batch which token it is: (batch_tokens,) int64, on the CPU, window x
    context + position.
    """

    def __init__(
        self, harvest: Harvest, train_windows: int, batch_tokens: int, seed: int, buffer_tokens: int = BUFFER_TOKENS
    ) -> None:
        if train_windows < 1:
            raise NoActivations("there are no training windows")
        self.harvest, self.batch_tokens, self._seed = harvest, batch_tokens, seed
        self._windows = train_windows
        self.mixing = mixing(train_windows, harvest.windows.context, batch_tokens, buffer_tokens)
        self._ring = Ring(self.mixing.rows, harvest.d_in, harvest.device)
        self._pass_order: tuple[int, NDArray[np.uint32]] | None = None
        self._first: Block | None = None  # the first chunk, outliers too, while only a sample of it was wanted
        self.where = torch.empty(0, dtype=torch.int64)
        self._go_to(_BEGINNING)

    def state(self) -> State:
        """The position after the latest whole batch, JSON-ready; ``load`` goes on from it."""
        return dict(self._state)

    def load(self, state: State) -> None:
        """Go on from a ``state``, which may be of version 0.3: then from the beginning of the pass that it was in."""
        if "pass" in state:
            state = {**_BEGINNING, "chunks": 1 + state["pass"] * self.mixing.chunks}
        if state != self._state:
            self._go_to(state)

    @property
    def outliers(self) -> float:
        """The share of outliers among the text tokens harvested so far."""
        return self._state["outliers"] / max(1, self._state["text_tokens"])

    def leave_out(self, outlier_norms: tuple[float, ...] | None) -> None:
        """From now on outliers do not count, here and wherever ``harvest`` is used; the position stays."""
        self.harvest.outlier_norms = outlier_norms
        self._go_to(self._state)

    def sample(self) -> Tensor:
        """The tokens of the first chunk that count, in random order: (n, d_in) float32. Always the same ones."""
        if self._first is None:
            blocks = list(self.harvest.blocks(self._windows_of(0)))
            self._first = Block(*map(torch.cat, zip(*blocks, strict=True)))
            self.harvest.commit()
        values = self._first.values
        kept = torch.nonzero(~self.harvest.beyond(values))[:, 0]
        order = torch.from_numpy(self._random(_SAMPLE, 0).permutation(len(kept)))
        return values[kept[order.to(kept.device)]].float()

    def statistics(self, columns: slice = slice(None)) -> tuple[float, Tensor]:
        """Of some columns of ``sample()``: what brings them to a mean norm of sqrt(d), and their centre (d,)."""
        x = self.sample()[:, columns]
        return scale_of(x), centre(x).point

    def __iter__(self) -> ActivationBatches:
        return self

    def __next__(self) -> Tensor:
        """The next batch. An exception on the way leaves ``state`` as it was; the call after it goes on."""
        if self._batch is None:
            self._batch = torch.empty(self.batch_tokens, self.harvest.d_in, device=self.harvest.device)
            self._from, self._filled = torch.empty(self.batch_tokens, dtype=torch.int64), 0
        while self._filled < self.batch_tokens:
            if self._offset == len(self._order):
                self._turn()
            else:
                self._give(self._batch)
        batch, self._batch, self.where = self._batch, None, self._from
        self._state = {"chunks": self._chunks, "offset": self._offset, **self._counted}
        return batch

    def _go_to(self, state: State) -> None:
        """Hold nothing, and know what to harvest."""
        self._state = dict(state)
        self._counted = {name: state[name] for name in ("text_tokens", "outliers")}
        self._chunks = state["chunks"]
        self._order = torch.empty(0, dtype=torch.int64)  # slots of the group at hand, in the order they are given
        self._offset = 0  # tokens of it that were given
        self._batch: Tensor | None = None  # while it is being filled
        self._barren = 0  # groups without tokens, in a row
        self._ring.clear()
        self._held = state["chunks"] == 0  # whether the ring has what the position asks for

    def _give(self, batch: Tensor) -> None:
        take = self._order[self._offset : self._offset + self.batch_tokens - self._filled]
        values, where = self._ring.read(take)
        batch[self._filled : self._filled + len(take)] = values
        self._from[self._filled : self._filled + len(take)] = where
        self._filled += len(take)
        self._offset += len(take)

    def _turn(self) -> None:
        """Go on to the next group, once the latest one is given out; after ``load``, to the one that it was in."""
        if not self._held:
            self._replay()
            return
        self._ring.release(self._order)
        self._order, self._offset = self._order[:0], 0
        text, outliers = self._harvest(self._chunks, self._chunks)
        self._counted = {
            "text_tokens": self._counted["text_tokens"] + text,
            "outliers": self._counted["outliers"] + outliers,
        }
        self._chunks += 1
        self._order = self._group()
        self._barren = 0 if len(self._order) else self._barren + 1
        if self._barren > self.mixing.chunks + self.mixing.parts:
            raise NoActivations("the training windows hold special tokens or outliers only")

    def _replay(self) -> None:
        """Have the latest group again, and what waits for later ones."""
        self._ring.clear()
        group = self._chunks - 1
        for chunk in range(max(0, self._chunks - self.mixing.parts), self._chunks):
            self._harvest(chunk, group)
        self._order, self._held = self._group(), True
        self._offset = self._state["offset"]

    def _group(self) -> Tensor:
        """The slots of the latest group, in the order in which they are given."""
        slots = self._ring.due(self._chunks - 1)
        return slots[torch.from_numpy(self._random(_GROUP, self._chunks - 1).permutation(len(slots)))]

    def _harvest(self, chunk: int, first: int) -> tuple[int, int]:
        """Put a chunk into the buffer, without what was for groups before ``first``; counts its text and outliers.

        Until all of it is there, nothing has changed.
        """
        numbers = self._windows_of(chunk)
        slots = self._ring.free(len(numbers) * self.harvest.windows.context)
        tokens, beyond = 0, [torch.empty(0, dtype=torch.bool, device=self.harvest.device)]
        for block in self._blocks(chunk, numbers):
            self._ring.write(slots[tokens : tokens + len(block.where)], block)
            beyond.append(self.harvest.beyond(block.values))
            tokens += len(block.where)
        self.harvest.commit()
        self._ring.take(tokens)
        out = torch.cat(beyond).cpu()
        kept = slots[:tokens][~out]
        kept = kept[torch.from_numpy(self._random(_CHUNK, chunk).permutation(len(kept)))]
        cuts = self.mixing.cuts(chunk, len(kept))
        passed = cuts[max(0, first - chunk)]  # tokens of groups that were given out before
        self._ring.release(slots[:tokens][out])
        self._ring.release(kept[:passed])
        for part in range(max(0, first - chunk), self.mixing.parts):
            self._ring.wait(chunk + part, kept[cuts[part] : cuts[part + 1]])
        return tokens, int(out.sum())

    def _blocks(self, chunk: int, numbers: NDArray[np.uint32]) -> Iterable[Block]:
        if chunk == 0 and self._first is not None:
            first, self._first = self._first, None
            return [first]
        return self.harvest.blocks(numbers)

    def _windows_of(self, chunk: int) -> NDArray[np.uint32]:
        """The windows of a chunk, in the order in which they lie on the disk."""
        pass_, chunk = divmod(chunk, self.mixing.chunks)
        if self._pass_order is None or self._pass_order[0] != pass_:
            windows = np.arange(self._windows, dtype=np.uint32)
            self._random(_PASS, pass_).shuffle(windows)
            self._pass_order = (pass_, windows)
        first, last = (self._windows * c // self.mixing.chunks for c in (chunk, chunk + 1))
        return np.sort(self._pass_order[1][first:last])

    def _random(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, purpose, number])


def pairs_of_a_window(where: Tensor, context: int) -> float:
    """Of all pairs of tokens of a batch the share that is of one window; ``where`` as ``ActivationBatches`` has it.

    A shuffle of all text would give about context / text tokens, a buffer about context / (2 x buffer tokens).
    """
    counts = torch.unique(where // context, return_counts=True)[1].double()
    n = len(where)
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))
