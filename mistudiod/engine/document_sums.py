"""Held-out text through a model and an SAE: what comes of it as a whole, and by document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import Explained, Floats, Sums
from mistudiod.engine.harvest import Harvest
from mistudiod.engine.measure import Measures, Meter, Variance
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import Rebuild, Units

ROWS = 4_096  # tokens that are measured at once
DENSE_ELEMENTS = 1 << 24  # of latents at once: 64 MiB, of an SAE of which any number may fire
Heard = Callable[[int], None]  # is told how many tokens have come, between batches; it may raise
_REST = ("lost", "cosine", "l2_ratio", "rebuilt", "products", "l0", "l1")  # columns of a tally, after ||y - shift||^2


@dataclass(frozen=True)
class Text:
    """What an SAE is measured on: the windows ``numbers`` of ``harvest``, of whose columns it reads some and is to
    rebuild some. ``units`` says which document a token is of. ``first``: where in a window its text begins.
    """

    harvest: Harvest
    numbers: NDArray[np.int64]
    read: slice
    rebuilt: slice
    units: Units
    first: int = 0


@dataclass(frozen=True)
class Batch:
    """Tokens that count, in order, ROWS at most."""

    x: Tensor  # (n, d_in) float32
    y: Tensor  # (n, d_out) float32, for an SAE the same
    units: NDArray[np.int64]  # (n,)
    windows: NDArray[np.int64]  # (n,)
    first: Tensor  # (n,) bool: where the text of a window begins


class Reading:
    """One pass over a text. ``left_out``: outliers."""

    def __init__(self, text: Text, heard: Heard, rows: int = ROWS) -> None:
        self._text, self._heard, self._rows, self.left_out = text, heard, rows, 0

    def __iter__(self) -> Iterator[Batch]:
        text, came = self._text, 0
        context = text.harvest.windows.context
        for block in text.harvest.blocks(text.numbers):
            kept = ~text.harvest.beyond(block.values)
            where = block.where[kept.cpu()].numpy()
            windows, at = np.unique(where // context, return_inverse=True)
            units = text.units.rows(windows)[at, where % context]
            self.left_out += len(block.values) - len(where)
            first = torch.from_numpy(where % context == text.first).to(block.values.device)
            values = block.values[kept].float()
            for start in range(0, len(values), self._rows):
                some = slice(start, start + self._rows)
                x, y = values[some, text.read], values[some, text.rebuilt]
                yield Batch(x, y, units[some], windows[at][some], first[some])
                self._heard(came + min(start + self._rows, len(values)))
            came += len(block.values)
            self._heard(came)


class Tally:
    """Sums by document, batch by batch, of vectors about one shift and of numbers beside them."""

    def __init__(self, units: int, columns: int) -> None:
        self._sums, self._about = np.zeros((units, 2 + columns)), np.zeros((units, 0))
        self._shift: Tensor | None = None

    def add(self, units: NDArray[np.integer], y: Tensor, columns: Tensor) -> None:
        """units (n,), y (n, d), columns (n, columns) float64."""
        if not len(y):
            return
        y = y.double()
        if self._shift is None:
            self._shift, self._about = y.mean(0), np.zeros((len(self._sums), y.shape[1]))
        about = y - self._shift
        ones = torch.ones(len(y), 1, dtype=torch.float64, device=y.device)
        table = torch.cat([ones, about.square().sum(1, keepdim=True), columns, about], 1)
        places, at = np.unique(units, return_inverse=True)
        # a product, not index_add: on a GPU that adds in another order each time
        of = torch.nn.functional.one_hot(torch.from_numpy(at).to(y.device), len(places)).double()
        added = (of.t() @ table).cpu().numpy()
        width = self._sums.shape[1]
        self._sums[places] += added[:, :width]
        self._about[places] += added[:, width:]

    def explained(self) -> Explained:
        """The first column is what is lost."""
        tokens, squares, lost = self._sums[:, :3].T
        return Explained(tokens, squares, self._about, lost)

    @property
    def rest(self) -> list[Floats]:
        """The other columns, (units,) each."""
        return list(self._sums[:, 3:].T)


@dataclass(frozen=True)
class Measured:
    """Of an SAE on a text."""

    measures: Measures
    sums: Sums
    left_out: int  # outliers


def measured(
    sae: SparseAutoencoder,
    text: Text,
    heard: Heard,
    also: Callable[[Batch, Tensor, Tensor], None] = lambda batch, y_hat, lost: None,
) -> Measured:
    """``also`` is given each batch, what is made of it (n, d_out) float32, and its squared error (n,) float64.

    Raises ValueError where there is no variance to explain, or what is rebuilt is not finite.
    """
    meter, tally, reading = Meter(sae), Tally(text.units.count, len(_REST)), Reading(text, heard, _rows(sae))
    for batch in reading:
        each = meter.each(batch.x, batch.y)
        columns = torch.cat([each.sums, each.l0[:, None], each.l1[:, None]], 1)
        tally.add(batch.units, batch.y, columns)
        also(batch, each.y_hat, each.sums[:, 0])
    measures, explained = meter.measures(), tally.explained()
    if not np.isfinite(explained.lost).all():
        raise ValueError("what the SAE rebuilds is not all finite numbers: its weights are damaged")
    sums = Sums(explained.tokens, explained.squares, explained.about, explained.lost, *tally.rest)
    return Measured(measures, sums, reading.left_out)


def rebuilding(sae: SparseAutoencoder) -> Rebuild:
    """What the SAE makes of x (n, d_in), of however many tokens: as many at once as ``measured`` takes."""

    @torch.no_grad()
    def rebuild(x: Tensor, y: Tensor) -> Tensor:
        parts = x.split(_rows(sae))  # of no tokens one part without any
        return torch.cat([sae.decode_active(*sae.encode_active(part), part) for part in parts])

    return rebuild


def _rows(sae: SparseAutoencoder) -> int:
    """Tokens at once: each is padded to as many latents as the fullest one has."""
    return ROWS if isinstance(sae.rule, TopKRule) else max(1, min(ROWS, DENSE_ELEMENTS // sae.d_sae))


class Part:
    """FVU of some of the tokens alone, about their own mean."""

    def __init__(self) -> None:
        self._variance, self._lost = Variance(), 0.0

    def add(self, y: Tensor, lost: Tensor) -> None:
        """y (n, d_out), lost (n,) float64."""
        if len(y):
            self._variance.add(y.double())
            self._lost += lost.sum().item()

    @property
    def tokens(self) -> int:
        return self._variance.tokens

    def fvu(self) -> float | None:
        """None where there is no variance, as of one token."""
        try:
            return self._lost / self._variance.total().item()
        except ValueError:
            return None
