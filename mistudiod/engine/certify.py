"""Which of the ways in which an SAE may have been meant holds: each is measured on the same held-out tokens.

The model runs once for all ways with BOS before the text and once without it, whatever the number of hooks; the ways
only encode and decode anew. Special tokens and outliers count in none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mistudiod.engine.harvest import Harvest, Windows, outlier_norms
from mistudiod.engine.lm import LM
from mistudiod.engine.measure import Variance
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import Loss, Splice
from mistudiod.engine.ways import UNNORMED, Size, Way, factors, meant, near_hooks, single_ways
from mistudiod.facts import FAMILIES, check_hook, parse_hook

CLEARLY = 0.8  # times the FVU of another way: see ``clearly_better``
MORE_LATENTS, HALVED = 2.0, 0.5
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
class Tried:
    """What was measured of a way. ``fvu`` is infinite where it is no number."""

    way: Way
    fvu: float
    l0: float
    alive: float  # share of latents that fired at all


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
        first = next(self._blocks(), None)
        if first is None or not len(first):
            raise ValueError("the held-out text has no token that is not special")
        if not first.isfinite().all():
            raise ValueError("the model's activations are not all finite numbers")
        self._harvest.outlier_norms = outlier_norms(first, widths)
        kept = first[~self._harvest.beyond(first)]
        self.sizes = {column: Size.of(kept[:, where]) for column, where in self._where.items()}
        self.tokens = self.left_out = 0  # of the latest reading

    def measured(self, ways: Sequence[Way]) -> list[Tried]:
        """Each way on the whole text. Raises ValueError where there is no variance to explain."""
        trials = [_Trial(self, way) for way in ways]
        variances = {trial.y: Variance() for trial in trials}
        self.tokens = self.left_out = came = 0
        for block in self._blocks():
            x = block[~self._harvest.beyond(block)]
            self.left_out += len(block) - len(x)
            self.tokens += len(x)
            for column, variance in variances.items():
                if len(x):
                    variance.add(x[:, self._where[column]].double())
            for trial in trials:
                trial.add(x[:, self._where[trial.x]], x[:, self._where[trial.y]])
                self._heard(came)
            came += len(block)
        return [trial.tried(variances[trial.y].total().item(), self.tokens) for trial in trials]

    def loss(self, way: Way) -> Loss | None:
        """What the SAE costs the model when it is read in this way; None where nothing can be put in its place.

        Raises ValueError when no token has text after it.
        """
        (hook, bos), (out, _) = columns = self.declared.columns(way)
        if out.endswith(UNNORMED):
            return None
        norms = dict(zip(self._columns, self._harvest.outlier_norms or (), strict=True))
        hooks = {hook: norms[columns[0]], out: norms[columns[1]]}
        text = self._body.led_by(self._lm.leading if bos else None)
        trial = _Trial(self, way)
        splice = Splice(self._lm, text, self._numbers, list(hooks), list(hooks.values()), self._harvest.lm_tokens)
        return splice.loss(hook, lambda x, _: trial.rebuilt(x), out)

    def _blocks(self) -> Iterator[Tensor]:
        """Text tokens of all columns, outliers too: (n, sum of widths) float32 each."""
        return (block.values.float() for block in self._harvest.blocks(self._numbers))

    def _forward(self, ids: Tensor) -> Tensor:
        """(n, T) → (n, T, sum of widths), columns side by side."""
        found: dict[Column, Tensor] = {}
        for bos in dict.fromkeys(bos for _, bos in self._columns):
            hooks = [hook for hook, of in self._columns if of == bos]
            led = torch.cat([ids.new_full((len(ids), 1), self._lm.leading or 0), ids], dim=1) if bos else ids
            for hook, values in zip(hooks, values_at(self._lm, led, hooks), strict=True):
                found[hook, bos] = values[:, int(bos) :]
        return torch.cat([found[column] for column in self._columns], dim=-1)


class _Trial:
    """Sums up what an SAE makes of activations when it is read in one way. Dense: see DENSE_ELEMENTS."""

    def __init__(self, bench: Bench, way: Way) -> None:
        self.way = way
        self.x, self.y = bench.declared.columns(way)
        size, size_out = bench.sizes[self.x], bench.sizes[self.y]
        self.sae = meant(bench.declared.sae, way, size)
        self.factors = factors(way, size, size_out)
        self._rows = max(1, DENSE_ELEMENTS // self.sae.d_sae)
        self._fired = torch.zeros(self.sae.d_sae, dtype=torch.int64, device=self.sae.W_dec.device)
        self._lost = torch.zeros((), dtype=torch.float64, device=self.sae.W_dec.device)

    def rebuilt(self, x: Tensor) -> Tensor:
        """Of x (n, d_in) float32, as the model has it: (n, d_out)."""
        return torch.cat([self._rebuilt(some)[0] for some in x.split(self._rows)]) if len(x) else x

    def add(self, x: Tensor, y: Tensor) -> None:
        """Of some tokens, (n, d_in) and (n, d_out) float32."""
        for some, aim in zip(x.split(self._rows), y.split(self._rows), strict=True):
            rebuilt, latents = self._rebuilt(some)
            self._fired += (latents > 0).sum(0)
            self._lost += (rebuilt - aim).double().square().sum()

    @torch.no_grad()
    def _rebuilt(self, x: Tensor) -> tuple[Tensor, Tensor]:
        read = x * self.factors[0]
        latents = self.sae.encode(read)
        return self.sae.decode(latents, read) / self.factors[1], latents

    def tried(self, variance: float, tokens: int) -> Tried:
        fvu = self._lost.item() / variance
        fired = self._fired
        l0, alive = fired.sum().item() / tokens, (fired > 0).double().mean().item()
        return Tried(self.way, fvu if math.isfinite(fvu) else math.inf, l0, alive)


def certify(bench: Bench, l0: float | None) -> Outcome:
    """Try every way alone, then the best of them with each other one. ``l0``: what the SAE's maker says.

    Raises ValueError as ``Bench.measured`` does.
    """
    declared = bench.declared
    singles = single_ways(declared.sae, bench.near, declared.bos)
    tried = bench.measured([Way(), *singles])
    tokens, left_out = bench.tokens, bench.left_out
    leading = min(tried[1:], key=lambda one: one.fvu).way
    both = [leading.and_also(way) for way in singles]
    pairs = bench.measured([way for way in both if way is not None])
    best = tried[0]
    for some in (tried[1:], pairs):
        better = [one for one in some if clearly_better(one, best, l0)]
        best = min(better, key=lambda one: one.fvu, default=best)
    alike = [
        one
        for one in tried[1:]
        if one is not best and clearly_better(one, tried[0], l0) and not clearly_better(best, one, l0)
    ]
    return Outcome([*tried, *pairs], best, alike, tokens, left_out)


def clearly_better(one: Tried, other: Tried, l0: float | None) -> bool:
    """Whether a way is so much better than another that the other cannot have been meant.

    Both are measured on the same tokens, so chance has little say; but of an SAE that is right as it is a hook nearby
    or another BOS may change FVU by as little as 2 to 5 % (the bundled model), and a b_dec near 0 by 14 %: with so
    little between them either may have been meant, and it matters little. What matters costs a multiple. So FVU must
    be a fifth lower. More latents explain more by themselves: where more than twice as many
    fire, FVU must be halved. Where the maker says an L0, a way that is off by more than a factor of two must not be
    further from it.
    """
    needed = HALVED if one.l0 > MORE_LATENTS * other.l0 else CLEARLY
    if not (math.isfinite(one.fvu) and one.fvu <= needed * other.fvu):
        return False
    return not l0 or off(one.l0, l0) <= max(off(other.l0, l0), MORE_LATENTS)


def off(measured: float, stated: float) -> float:
    """The factor between two positive numbers, 1 or more."""
    return max(measured / stated, stated / measured) if measured > 0 else math.inf


def values_at(lm: LM, ids: Tensor, hooks: Sequence[str]) -> list[Tensor]:
    """The values at hooks, as ``LM.activations_at``, of which some may be in front of a norm (``UNNORMED``)."""
    plain = list(dict.fromkeys(hook.removesuffix(UNNORMED) for hook in hooks))
    wanted = [hook for hook in hooks if hook.endswith(UNNORMED)]
    with _unnormed(lm, wanted) as found:
        values = dict(zip(plain, lm.activations_at(ids, plain), strict=True))
    return [{**values, **found}[hook] for hook in hooks]


@contextmanager
def _unnormed(lm: LM, hooks: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    family, values = FAMILIES[lm.facts.family], {}

    def keep(hook: str) -> Callable[..., None]:
        def heard(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            values[hook] = output[0] if isinstance(output, tuple) else output

        return heard

    with ExitStack() as stack:
        for hook in hooks:
            layer, point = parse_hook(hook.removesuffix(UNNORMED))
            block = getattr(lm.model.base_model, family.blocks)[layer]
            part = block.get_submodule(family.attention if point == "hook_attn_out" else "mlp")
            handle = part.register_forward_hook(keep(hook))
            stack.callback(handle.remove)
        yield values
