"""Features amplified, suppressed, set or removed while a model runs: what is added at which hook, and that it was.

Of one feature h is the value at the hook where its SAE writes, d its row of W_dec as it lies (times the scale it has
taken from h, of an SAE with a norm), a its activation on the value where the SAE reads, m the largest activation known
of it. All that is done at one hook is computed from the same h and summed: no order matters, several SAEs add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.hooks import hooked
from mistudiod.engine.latents_of import LatentsOf
from mistudiod.engine.lm import LM
from mistudiod.engine.norms import scale
from mistudiod.engine.sae import SparseAutoencoder


class HookDidNotRun(RuntimeError):
    """An edit was not made exactly once in a pass: whatever came of the pass is not what was asked for."""


@dataclass(frozen=True)
class Change:
    """What is done to one feature of ``sae``, which reads at ``hook`` and writes at ``hook_out``.

    add: h += strength·maximum·d. clamp: h += (strength·maximum - a)·d. scale: h += (strength - 1)·a·d.
    ablate: h -= a·d. ``scope``: all; generated (positions after the prompt); active (where a > 0, before anything is
    done at this hook); from:N (positions from N on, BOS is 0).
    """

    sae: SparseAutoencoder = field(compare=False, repr=False)
    name: str  # of the SAE
    hook: str
    hook_out: str
    feature: int
    op: str
    strength: float
    maximum: float
    scope: str

    @property
    def constant(self) -> float:
        """What is added is (constant + slope·a)·d."""
        return self.strength * self.maximum if self.op in ("add", "clamp") else 0.0

    @property
    def slope(self) -> float:
        return {"add": 0.0, "clamp": -1.0, "scale": self.strength - 1, "ablate": -1.0}[self.op]

    @property
    def reads(self) -> bool:
        """Whether a has to be known, or the scale."""
        return self.slope != 0 or self.scope == "active" or self.sae.norm != "none"

    @property
    def does_nothing(self) -> bool:
        """Whether nothing is added whatever the text: strength 0, a scale of 1, or a dead feature that is added."""
        return self.constant == 0 == self.slope


def first(scope: str, prompt_tokens: int) -> int:
    """The first position that a scope may concern."""
    if scope == "generated":
        return prompt_tokens
    return int(scope.removeprefix("from:")) if scope.startswith("from:") else 0


def formula(change: Change) -> str:
    """What is added, in a line for people, such as ``h += 2 × 13.42 × d``."""
    strength, maximum = f"{change.strength:g}", f"{change.maximum:.4g}"
    return {
        "add": f"h += {strength} × {maximum} × d",
        "clamp": f"h += ({strength} × {maximum} - a) × d",
        "scale": f"h += ({strength} - 1) × a × d",
        "ablate": "h -= a × d",
    }[change.op]


@dataclass(frozen=True)
class Effect:
    """What one change has done so far."""

    positions: int = 0  # at which h is another after it
    change: float = 0.0  # sum over them of the norm of all that was added there
    h: float = 0.0  # sum over them of the norm of h before

    def __add__(self, other: Effect) -> Effect:
        return Effect(self.positions + other.positions, self.change + other.change, self.h + other.h)


@dataclass(frozen=True)
class _Entry:
    row: int  # of those that go through the model
    place: tuple[int, int]  # of its effect: row of those at the beginning, and number of the change in it
    change: Change


@dataclass(frozen=True)
class _Pass:
    """What goes through the model."""

    text: Tensor  # (B, T) bool: no special token
    start: int  # position of the first
    prompt_tokens: int

    @property
    def end(self) -> int:
        return self.start + self.text.shape[1]


class _Steered:
    """What is done to the features of one SAE, E changes in all rows together, U directions."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.entries, changes = entries, [entry.change for entry in entries]
        sae, self.hook, self.hook_out = changes[0].sae, changes[0].hook, changes[0].hook_out
        device = sae.W_dec.device
        before: Counter[tuple[int, int]] = Counter()
        names: list[tuple[int, int]] = []  # of a feature that a row has twice each has a column of its own
        for one in entries:
            names.append((one.change.feature, before[one.row, one.change.feature]))
            before[one.row, one.change.feature] += 1
        columns = _numbered(names)
        self._rows = torch.tensor([entry.row for entry in entries], device=device)  # (E,)
        self._columns = torch.tensor([columns[name] for name in names], device=device)  # (E,)
        self._directions = sae.W_dec[[feature for feature, _ in columns]]  # (U, d_out)
        self._norms = torch.linalg.vector_norm(self._directions, dim=1)[self._columns, None]  # (E, 1)
        self._constant, self._slope = (
            torch.tensor([getattr(change, name) for change in changes], device=device)[:, None]
            for name in ("constant", "slope")
        )  # (E, 1)
        self._scopes = _numbered(change.scope for change in changes)
        self._scope = torch.tensor([self._scopes[change.scope] for change in changes], device=device)
        self._where_active = (self._scope == self._scopes.get("active", -1))[:, None]
        self.totals = torch.zeros(len(entries), 3, dtype=torch.float64, device=device)
        reading = _numbered(entry.row for entry in entries if entry.change.reads)
        self._reading = list(reading)
        self._activations: Tensor | None = None  # (rows that read, T, features)
        if self._reading:
            features = _numbered(change.feature for change in changes)
            self._latents, self._norm = LatentsOf(sae, list(features)), sae.norm
            self._read_row = torch.tensor([reading.get(one.row, 0) for one in entries], device=device)
            self._read_column = torch.tensor([features[change.feature] for change in changes], device=device)

    def concerned(self, now: _Pass) -> bool:
        return min(first(scope, now.prompt_tokens) for scope in self._scopes) < now.end

    def forget(self) -> None:
        self._activations = None

    def read(self, x: Tensor) -> None:
        """Take the activations of x (B, T, d_in), where the SAE reads, should any be needed."""
        if self._reading:
            some = x if len(self._reading) == len(x) else x[self._reading]
            flat = some.flatten(0, 1).float()
            self._activations = self._latents(flat).view(*some.shape[:2], -1)
            self._scale = scale(self._norm, flat).view(some.shape[:2])

    def factors(self, now: _Pass) -> Tensor:
        """By what each direction is multiplied before it is added: (E, T)."""
        applies = now.text[self._rows]  # (E, T)
        firsts = [first(scope, now.prompt_tokens) for scope in self._scopes]
        if max(firsts) > now.start:
            positions = torch.arange(now.start, now.end, device=applies.device)
            applies = applies & (positions >= torch.tensor(firsts, device=applies.device)[self._scope, None])
        factors = self._constant.expand(applies.shape)
        if self._reading:
            if self._activations is None:
                raise HookDidNotRun(f"nothing was read at {self.hook} before it was to change {self.hook_out}")
            a = self._activations[self._read_row, :, self._read_column]
            factors = (factors + self._slope * a) * self._scale[self._read_row]
            applies = applies & (~self._where_active | (a > 0))
        return torch.where(applies, factors, 0)

    def delta(self, factors: Tensor, rows: int) -> Tensor:
        """What is added: (B, T, d_out) float32."""
        spread = factors.new_zeros(rows, factors.shape[1], len(self._directions))
        spread[self._rows, :, self._columns] = factors
        return spread @ self._directions

    def count(self, factors: Tensor, changed: Tensor, sizes: Tensor, norms: Tensor) -> None:
        """Add to the totals; ``changed``, ``sizes`` of what is added in all, and ``norms`` of h are (B, T)."""
        counted = changed[self._rows] & (factors.abs() * self._norms > 0)
        parts = counted, sizes[self._rows] * counted, norms[self._rows] * counted
        self.totals += torch.stack([part.sum(1, dtype=torch.float64) for part in parts], dim=1)


def _numbered(things: Iterable[Any]) -> dict[Any, int]:
    """Each of different things and its number, in the order in which they come."""
    return {thing: n for n, thing in enumerate(dict.fromkeys(things))}


class Changing:
    """While it is entered, what the model computes of a batch has ``rows[r]`` changed in row r.

    Say ``at`` before each pass of the model: which tokens go through it. ``effects`` and ``check`` tell of the passes
    since it was entered. Positions of ``special_ids`` are never changed.
    """

    def __init__(self, lm: LM, rows: Sequence[Sequence[Change]], special_ids: Collection[int]) -> None:
        self._lm, self._all = lm, [list(row) for row in rows]
        self._special = torch.tensor(sorted(special_ids), dtype=torch.int64, device=lm.device)
        self._sums: dict[tuple[int, int], Effect] = {}
        self._now: _Pass | None = None
        self._steered: list[_Steered] = []
        self.keep(range(len(rows)))
        found = [change for row in self._all for change in row if not change.does_nothing]
        self._hooks = dict.fromkeys(hook for one in found for hook in ((one.hook, one.hook_out) if one.reads
                                                                       else (one.hook_out,)))  # fmt: skip
        self._passed = dict.fromkeys(self._hooks, 1)
        self._stack = ExitStack()

    def __enter__(self) -> Changing:
        functions = {hook: partial(self._run, hook) for hook in self._hooks}
        self._stack.enter_context(hooked(self._lm.model, functions))
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows of those at the beginning, in this order, and no others."""
        self._sums |= self._new_sums()
        groups: dict[tuple[str, str, str], list[_Entry]] = {}
        self._kept = len(rows)
        for row, of in enumerate(rows):
            for n, change in enumerate(self._all[of]):
                if not change.does_nothing:
                    key = change.name, change.hook, change.hook_out
                    groups.setdefault(key, []).append(_Entry(row, (of, n), change))
        self._steered = [_Steered(entries) for entries in groups.values()]

    def at(self, ids: Tensor, start: int, prompt_tokens: int) -> None:
        """The next pass of the model is of the tokens ``ids`` (B, T), of which the first stand at position ``start``.

        The prompt is the first ``prompt_tokens`` positions. Raises HookDidNotRun for the pass before.
        """
        self.check()
        if len(ids) != self._kept:
            raise ValueError(f"{len(ids)} rows go through the model, and {self._kept} were to be changed")
        self._now = _Pass(~torch.isin(ids.to(self._lm.device), self._special), start, prompt_tokens)
        self._passed = dict.fromkeys(self._hooks, 0)
        for one in self._steered:
            one.forget()

    def check(self) -> None:
        """Raises HookDidNotRun unless the latest pass came by every hook once."""
        for hook, times in self._passed.items():
            if times != 1:
                raise HookDidNotRun(f"the edit at {hook} did not run: the model came by {times} times in one pass")

    def effects(self) -> list[list[Effect]]:
        """Of each row at the beginning, of each of its changes."""
        sums = self._sums | self._new_sums()
        return [[sums.get((r, n), Effect()) for n in range(len(row))] for r, row in enumerate(self._all)]

    def _new_sums(self) -> dict[tuple[int, int], Effect]:
        found = {}
        for one in self._steered:
            for entry, (positions, change, h) in zip(one.entries, one.totals.tolist(), strict=True):
                new = Effect(round(positions), change, h)
                found[entry.place] = self._sums.get(entry.place, Effect()) + new
        return found

    def _run(self, hook: str, x: Tensor) -> Tensor | None:
        self._passed[hook] += 1
        if self._now is None or self._passed[hook] > 1:
            raise HookDidNotRun(f"the model came by {hook} {self._passed[hook]} times in a pass that was said once")
        now, new = self._now, None
        concerned = [one for one in self._steered if one.concerned(now)]
        for one in concerned:
            if one.hook == hook == one.hook_out:
                one.read(x)
        if writing := [one for one in concerned if one.hook_out == hook]:
            new = _written(writing, x, now)
        for one in concerned:
            if one.hook == hook != one.hook_out:  # a transcoder reads what the model reads there
                one.read(x if new is None else new)
        return new


def _written(writing: Sequence[_Steered], x: Tensor, now: _Pass) -> Tensor:
    """x (B, T, width) after what is done there."""
    factors = [one.factors(now) for one in writing]
    delta = sum(one.delta(part, len(x)) for one, part in zip(writing, factors, strict=True))
    h = x.float()
    new = (h + delta).to(x.dtype)
    changed, sizes, norms = (new != x).any(-1), *(torch.linalg.vector_norm(one, dim=-1) for one in (delta, h))
    for one, part in zip(writing, factors, strict=True):
        one.count(part, changed, sizes, norms)
    return new
