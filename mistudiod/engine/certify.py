"""Which of the ways in which an SAE may have been meant holds: each is measured on the same held-out tokens.

The model runs once for all ways with BOS before the text and once without it, whatever the number of hooks; the ways
only encode and decode anew. Special tokens and outliers count in none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mistudiod.engine.harvest import Block, Harvest, Windows, outlier_norms
from mistudiod.engine.lm import LM
from mistudiod.engine.near import UNNORMED, near_hooks, values_at
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import Loss, Splice
from mistudiod.engine.tried import Aim, Tried, better, cost
from mistudiod.engine.ways import Size, Way, factors, meant, single_ways
from mistudiod.facts import check_hook

GOOD = 0.5  # FVU below which an SAE is read as it was meant, but for what costs little when it is mistaken:
PIECE, PIECES = 64, 256  # tokens that stay together when text is drawn, or more; of how many pieces at most
QUIET = {"b_dec", "bos", "hook"}
KEPT_BYTES = 1 << 29  # of activations between two readings of the text; beyond it the model runs again
DENSE_ELEMENTS = 1 << 24  # of latents at once: 64 MiB; a wrong way may let half of them fire
Column = tuple[str, bool]  # a hook, and whether BOS stands before the text


class Body:
    """Windows without a BOS of their own (``begins``: they have one), so that all begin alike, or with ``lead`` there.

    ``most`` tokens of each are kept, besides the lead: the model must have room for that.
    """

    def __init__(self, windows: Windows, begins: bool, most: int, lead: int | None = None) -> None:
        self._windows, self._first, self._lead = windows, int(begins), lead
        self._length = min(windows.context - self._first, most)
        self.context = self._length + (lead is not None)

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        rows = self._windows.rows(indices)[:, self._first : self._first + self._length]
        if self._lead is None:
            return rows
        return np.concatenate([np.full((len(rows), 1), self._lead), rows], axis=1)

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        mask = self._windows.special_mask(rows)
        mask[:, : self._lead is not None] = True
        return mask

    def aligned(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of numbers at the windows' tokens (n, context of those) the ones at these: (n, context), 0 at the lead."""
        return np.pad(values[:, self._first : self._first + self._length], ((0, 0), (int(self._lead is not None), 0)))

    def led_by(self, lead: int | None) -> Body:
        return Body(self._windows, bool(self._first), self._length, lead)


@dataclass(frozen=True)
class Declared:
    """How an SAE is read by what its files say. ``bos``: the text begins with BOS; None: the model has no BOS."""

    sae: SparseAutoencoder
    hook: str
    hook_out: str
    bos: bool | None

    def columns(self, way: Way) -> tuple[Column, Column]:
        """What is read in a way, and what is rebuilt."""
        bos = way.bos == "with" if way.bos else bool(self.bos)
        hook = way.hook or self.hook
        return (hook, bos), (self.hook_out if self.sae.transcodes else hook, bos)


@dataclass(frozen=True)
class Outcome:
    """Every way that was tried, the declared one first; the one that holds; the text that it was done on."""

    tried: list[Tried]
    best: Tried
    alike: list[Tried]  # also clearly better than the declared one, and not clearly worse than the best
    tokens: int
    left_out: int  # outliers

    @property
    def declared(self) -> Tried:
        return self.tried[0]


class Bench:
    """Held-out text through the model, at every hook of every way, with BOS and without.

    ``numbers``: of the windows; ``heard`` is told how many tokens have come, between batches.
    """

    def __init__(
        self, lm: LM, body: Body, numbers: NDArray[np.int64], declared: Declared, heard: Callable[[int], None]
    ) -> None:
        self.declared, self._lm, self._body, self._numbers, self._heard = declared, lm, body, numbers, heard
        self.near = near_hooks(lm.facts, declared.hook)
        hooks = dict.fromkeys((declared.hook, declared.hook_out, *self.near))
        boses = (False,) if declared.bos is None else (True, False)
        self._columns = [(hook, bos) for bos in boses for hook in hooks]
        widths = [check_hook(lm.facts, hook.removesuffix(UNNORMED)) for hook, _ in self._columns]
        self._harvest = Harvest(body, self._forward, widths, lm.device)
        self._where = dict(zip(self._columns, self._harvest.columns(), strict=True))
        self._kept: list[Block] | None = None
        self._splices: dict[tuple[Column, Column], Splice] = {}
        block = next(self._blocks(), None)
        if block is None or not len(block.values):
            raise ValueError("the held-out text has no token that is not special")
        first = block.values.float()
        if not first.isfinite().all():
            raise ValueError("the model's activations are not all finite numbers")
        self._harvest.outlier_norms = outlier_norms(first, widths)
        kept = first[~self._harvest.beyond(first)]
        self.sizes = {column: Size.of(kept[:, where]) for column, where in self._where.items()}
        self.tokens = self.left_out = 0  # of the latest reading

    def measured(self, ways: Sequence[Way]) -> list[Tried]:
        """Each way on the whole text. Raises ValueError where there is no variance to explain."""
        trials = [_Trial(self, way) for way in ways]
        aims = {trial.y: _Sums(2 + trial.sae.d_out, self.pieces, self._lm.device) for trial in trials}
        self.tokens = self.left_out = came = 0
        for block in self._blocks():
            values = block.values.float()
            counts = ~self._harvest.beyond(values)
            x, pieces = values[counts], self._pieces_of(block.where).to(counts.device)[counts]
            self.left_out += len(values) - len(x)
            self.tokens += len(x)
            for column, sums in aims.items():
                y = x[:, self._where[column]].double()
                sums.add(torch.cat([torch.ones_like(y[:, :1]), y.square().sum(1, keepdim=True), y], dim=1), pieces)
            for trial in trials:
                trial.add(x[:, self._where[trial.x]], x[:, self._where[trial.y]], pieces)
                self._heard(came)
            came += len(values)
        if not self.tokens:
            raise ValueError("there are no activations to measure on")
        known = {column: Aim(*_parted(sums.total)) for column, sums in aims.items()}
        return [trial.tried(known[trial.y], self.tokens) for trial in trials]

    @property
    def pieces(self) -> int:
        return min(PIECES, math.ceil(len(self._numbers) * self._body.context / PIECE))

    def _pieces_of(self, where: Tensor) -> Tensor:
        """The piece of text that each token lies in, by where it is (n,): numbers from 0."""
        context, windows = self._body.context, torch.from_numpy(self._numbers)
        place = torch.searchsorted(windows, where // context) * context + where % context
        return place * self.pieces // (len(windows) * context)

    def loss(self, way: Way) -> Loss | None:
        """What the SAE costs the model when it is read in this way; None where nothing can be put in its place.

        Raises ValueError when no token has text after it.
        """
        (hook, bos), (out, _) = columns = self.declared.columns(way)
        if UNNORMED in hook + out:
            return None
        if columns not in self._splices:  # it remembers what ablations cost
            norms = dict(zip(self._columns, self._harvest.outlier_norms or (), strict=True))
            hooks = {hook: norms[columns[0]], out: norms[columns[1]]}
            text = self._body.led_by(self._lm.leading if bos else None)
            sizes = list(hooks), list(hooks.values()), self._harvest.lm_tokens
            self._splices[columns] = Splice(self._lm, text, self._numbers, *sizes)
        trial = _Trial(self, way)
        return self._splices[columns].loss(hook, lambda x, _: trial.rebuilt(x), out)

    def _blocks(self) -> Iterator[Block]:
        """Text tokens of all columns, outliers too: (n, sum of widths) each."""
        if self._kept is not None:
            yield from self._kept
            return
        kept, room = list[Block](), KEPT_BYTES
        for block in self._harvest.blocks(self._numbers):
            yield block
            room -= block.values.nbytes
            if room >= 0:
                kept.append(block)
            else:
                kept.clear()
        self._kept = kept if room >= 0 else None

    def _forward(self, ids: Tensor) -> Tensor:
        """(n, T) → (n, T, sum of widths), columns side by side."""
        found: dict[Column, Tensor] = {}
        for bos in dict.fromkeys(bos for _, bos in self._columns):
            hooks = [hook for hook, of in self._columns if of == bos]
            led = torch.cat([ids.new_full((len(ids), 1), self._lm.leading or 0), ids], dim=1) if bos else ids
            for hook, values in zip(hooks, values_at(self._lm, led, hooks), strict=True):
                found[hook, bos] = values[:, int(bos) :]
        return torch.cat([found[column] for column in self._columns], dim=-1)


class _Sums:
    """Of each piece of text: (pieces, width) float64."""

    def __init__(self, width: int, pieces: int, device: torch.device) -> None:
        self.total = torch.zeros(pieces, width, dtype=torch.float64, device=device)

    def add(self, values: Tensor, pieces: Tensor) -> None:
        """values (n, width) of tokens that lie in ``pieces`` (n,)."""
        self.total.index_add_(0, pieces, values)


class _Trial:
    """Sums up what an SAE makes of activations when it is read in one way. Dense but for top-k: see DENSE_ELEMENTS."""

    def __init__(self, bench: Bench, way: Way) -> None:
        self.way = way
        self.x, self.y = bench.declared.columns(way)
        size, size_out = bench.sizes[self.x], bench.sizes[self.y]
        self.sae = meant(bench.declared.sae, way, size)
        self.factors = factors(way, size, size_out)
        self._rows = max(1, DENSE_ELEMENTS // self.sae.d_sae)
        device = self.sae.W_dec.device
        self._fired = torch.zeros(self.sae.d_sae, dtype=torch.int64, device=device)
        self._sums = _Sums(2 + self.sae.d_out, bench.pieces, device)

    def rebuilt(self, x: Tensor) -> Tensor:
        """Of x (n, d_in) float32, as the model has it: (n, d_out)."""
        return torch.cat([self._rebuilt(some)[0] for some in x.split(self._rows)]) if len(x) else x

    def add(self, x: Tensor, y: Tensor, pieces: Tensor) -> None:
        """Of some tokens, (n, d_in) and (n, d_out) float32, and the piece of text that each lies in (n,)."""
        for some, aim, within in zip(*(each.split(self._rows) for each in (x, y, pieces)), strict=True):
            rebuilt, fired = self._rebuilt(some)
            self._fired += fired
            residual = (rebuilt - aim).double()
            squares = [each.double().square().sum(1, keepdim=True) for each in (residual, rebuilt)]
            self._sums.add(torch.cat([*squares, residual], dim=1), within)

    @torch.no_grad()
    def _rebuilt(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is rebuilt of x (n, d_in), and on how many tokens each latent fired (d_sae,)."""
        read = x * self.factors[0]
        if isinstance(self.sae.rule, TopKRule):
            values, latents = self.sae.encode_active(read)
            rebuilt, fired = self.sae.decode_active(values, latents, read), latents[values > 0]
            return rebuilt / self.factors[1], torch.bincount(fired, minlength=self.sae.d_sae)
        every = self.sae.encode(read)
        return self.sae.decode(every, read) / self.factors[1], (every > 0).sum(0)

    def tried(self, aim: Aim, tokens: int) -> Tried:
        l0, alive = self._fired.sum().item() / tokens, (self._fired > 0).double().mean().item()
        return Tried(self.way, l0, alive, *_parted(self._sums.total), aim)


def _parted(sums: Tensor) -> list[NDArray[np.float64]]:
    """The first two columns (n,) each, then the rest (n, d)."""
    found = sums.cpu().numpy()
    return [found[:, 0], found[:, 1], found[:, 2:]]


def certify(bench: Bench, l0: float | None) -> Outcome:
    """Try every way alone, then the best of them with each other one. ``l0``: what the SAE's maker says.

    Where the best so far explains well, a second mistake can only be one that costs little; where that is the declared
    way, none is looked for. Raises ValueError as ``Bench.measured`` does.
    """
    declared = bench.declared
    singles = single_ways(declared.sae, bench.near, declared.bos)
    tried = bench.measured([Way(), *singles])
    best = _best(tried[1:], tried[0], tried[0], l0)
    if best is not tried[0] or best.fvu > GOOD:
        leading = best if best is not tried[0] else min(tried[1:], key=lambda one: cost(one, tried[0]))
        both = [leading.way.and_also(way) for way in singles if leading.fvu > GOOD or way.changes.keys() <= QUIET]
        tried += bench.measured([way for way in both if way is not None])
        best = _best(tried[1 + len(singles) :], best, tried[0], l0)
    alike = [
        one
        for one in tried[1:]
        if best is not tried[0] and one is not best and better(one, tried[0], l0) and not better(best, one, l0)
    ]
    return Outcome(tried, best, alike, bench.tokens, bench.left_out)


def _best(some: Sequence[Tried], so_far: Tried, declared: Tried, l0: float | None) -> Tried:
    """Of some ways the one that costs least of those that are better than the best so far, else that.

    One that costs a little more may be better than it: see ``better``.
    """
    found = sorted((one for one in some if better(one, so_far, l0)), key=lambda one: cost(one, declared))
    best = found[0] if found else so_far
    for one in found[1:]:
        if better(one, best, l0):
            best = one
    return best
