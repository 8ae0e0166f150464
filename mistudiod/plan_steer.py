"""The memory of a steering session: a whole model and SAEs that stay, and texts that are written together. Pure
arithmetic; bytes throughout.

The numbers in front of each size count the tensors that are alive at the same time in ``engine.write``,
``engine.edits``, ``engine.effects`` and ``engine.strength_range``; ``bench/ranges.py --memory`` holds the sums to
measured peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mistudiod.budget import Budget, Device
from mistudiod.facts import ModelFacts
from mistudiod.plan_answer import Line, Way, size_text
from mistudiod.plan_choices import halves
from mistudiod.plan_model import COMPUTE_BYTES, Precision, Reading
from mistudiod.plan_sae import BLOCK_BYTES, FLOAT, MIN_BLOCK_ROWS, TOPK_SHARE
from mistudiod.plan_train import (
    FRAGMENTED_SHARE,
    HOST_BYTES,
    LOGIT_BYTES,
    PASS_TOKENS,
    QUANTISED_BYTES,
    RUNTIME_BYTES,
)
from mistudiod.planner import LADDER, Abilities

Part = Literal["weights", "runtime", "saes", "loading", "cache", "forward", "edits", "encoding", "sampling", "logits"]
Phase = Literal["load", "write", "read", "calibrate", "texts"]
Parts = dict[Part, int]
CACHES = 2  # of a row: that of its prompt, and its own, which begins with a copy
EDIT_TENSORS = 5  # as wide as a hook, float32: the value, what is added, their sum, what is captured, what is read
SAMPLING_BYTES = 40  # of a row and a token of the vocabulary: logits, ordered ones, probabilities, noise
MASK_BYTES = 5  # of a token and a token that it may see
LOGIT_TENSORS = 6  # of a piece, as in LOGIT_BYTES
# engine.strength_range: tokens that are read at once; short texts that are written at once, and their tokens.
CALIBRATING_PASS, CALIBRATING_ROWS, CALIBRATING_TOKENS = 4_096, 32, 48
LEAST_TOKENS = 64  # of a text and its prompt; shorter ones are of no use


@dataclass(frozen=True)
class SaeSize:
    """What an SAE reads, its features, and what it writes: numbers."""

    d_in: int
    d_sae: int
    d_out: int
    skip: bool = False  # it adds a linear map of what it reads

    @property
    def bytes(self) -> int:
        vectors = 3 * self.d_sae + self.d_out  # biases, and what its rule has of each feature
        return FLOAT * (self.d_sae * (self.d_in + self.d_out) + vectors + self.skip * self.d_in * self.d_out)


@dataclass(frozen=True)
class SteerPlan:
    """``total_bytes``: the peak and the reserve. ``fits``, of all ``rows`` at once, is None when it is unknown what is
    free; ``rows_at_once`` is then what is asked. A session can be had when ``rows_at_once`` is above 0.
    """

    budget: Budget
    precision: Precision
    saes: int
    rows: int  # texts that are written at once
    tokens: int  # of each, its prompt among them
    parts: tuple[Line, ...]
    peak_bytes: int
    total_bytes: int
    host_bytes: int | None  # of the machine's memory, beside a GPU with its own
    fits: bool | None
    rows_at_once: int
    ways: tuple[Way, ...]  # what would fit, when this does not
    verdict: str = field(default="")

    def about(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def plan(
    facts: ModelFacts,
    precision: Precision,
    saes: Sequence[SaeSize],
    rows: int,
    tokens: int,
    budget: Budget,
    abilities: Abilities,
) -> SteerPlan:
    """Plan a session that writes ``rows`` texts at once, of ``tokens`` with their prompt. Raises UnknownModel."""
    case = _Case(facts, precision, tuple(saes), rows, tokens, budget.device)
    found = case.phases()
    peak = max(found.values(), key=lambda parts: sum(parts.values()))
    fits = case.fits(budget)
    made = SteerPlan(
        budget=budget,
        precision=precision,
        saes=len(saes),
        rows=rows,
        tokens=tokens,
        parts=_lines(found, peak, budget.reserve_bytes),
        peak_bytes=case.peak(),
        total_bytes=case.peak() + budget.reserve_bytes,
        host_bytes=None if budget.host_free_bytes is None else case.host_bytes(),
        fits=fits,
        rows_at_once=rows if fits is not False else _most_rows(case, lambda one: bool(one.fits(budget))),
        ways=tuple(_ways(case, budget, abilities)) if fits is False else (),
    )
    return replace(made, verdict=_verdict(made))


def rows_at_once(
    facts: ModelFacts,
    precision: Precision,
    saes: Sequence[SaeSize],
    rows: int,
    tokens: int,
    device: Device,
    usable_bytes: int | None,
) -> int:
    """How many of ``rows`` texts are written at once by a session whose model and SAEs are in memory already.

    ``usable_bytes``: what is free now and may be taken; None when it is unknown, then all of them. At least 1: that
    one text does not fit is found out by writing it.
    """
    case = _Case(facts, precision, tuple(saes), rows, tokens, device)
    if usable_bytes is None:
        return rows
    return max(1, _most_rows(case, lambda one: one.request() <= usable_bytes))


@dataclass(frozen=True)
class _Case:
    """What is in memory, and what is asked of it."""

    facts: ModelFacts
    precision: Precision
    saes: tuple[SaeSize, ...]
    rows: int
    tokens: int
    device: Device

    def phases(self) -> dict[Phase, Parts]:
        resting: Parts = {"weights": self._reading.weights(), "runtime": self._runtime(), "saes": self._saes()}
        calibrating = replace(self, rows=CALIBRATING_ROWS, tokens=CALIBRATING_TOKENS)
        found: dict[Phase, Parts] = {
            "load": {**resting, "loading": self._reading.converted()},
            "write": {**resting, **self._writing()},
            "read": {**resting, **self._reading_texts()},
            "calibrate": {**resting, **self._passing(CALIBRATING_PASS), "logits": LOGIT_BYTES},
            "texts": {**resting, **calibrating._writing()},
        }
        if self.device != "cpu":
            for parts in found.values():
                parts["runtime"] += int(FRAGMENTED_SHARE * (sum(parts.values()) - RUNTIME_BYTES[self.device]))
        return found

    def peak(self) -> int:
        return max(sum(parts.values()) for parts in self.phases().values())

    def request(self) -> int:
        """What a request takes beside what stays in memory."""
        taken = max(sum(self._writing().values()), sum(self._reading_texts().values()))
        return taken if self.device == "cpu" else int((1 + FRAGMENTED_SHARE) * taken)

    def host_bytes(self) -> int:
        """Of the machine's memory, beside a GPU with its own: libraries, and an SAE on its way."""
        return HOST_BYTES + max((sae.bytes for sae in self.saes), default=0)

    def fits(self, budget: Budget) -> bool | None:
        if budget.free_bytes is None:
            return None
        enough = budget.host_free_bytes is None or self.host_bytes() <= budget.host_free_bytes
        return enough and self.peak() + budget.reserve_bytes <= budget.free_bytes

    @property
    def _reading(self) -> Reading:
        return Reading(self.facts, (), self.precision, whole=True)

    def _runtime(self) -> int:
        return RUNTIME_BYTES[self.device] + QUANTISED_BYTES * (self.precision in ("int8", "nf4"))

    def _saes(self) -> int:
        return sum(sae.bytes for sae in self.saes)

    def _writing(self) -> Parts:
        sampling = self.rows * self.facts.vocab_size * SAMPLING_BYTES
        return {**self._passing(self._at_once), "cache": self._cache(), "sampling": sampling}

    def _reading_texts(self) -> Parts:
        """What is measured of texts: one after another becomes logits."""
        logits = min(LOGIT_BYTES, LOGIT_TENSORS * FLOAT * self.tokens * self.facts.vocab_size)
        return {**self._passing(self._at_once), "cache": self._cache(), "logits": logits}

    @property
    def _at_once(self) -> int:
        """Tokens of a pass: no more than ``engine.lm`` takes, or than there are."""
        return min(PASS_TOKENS[self.device], self.rows * self.tokens)

    def _passing(self, at_once: int) -> Parts:
        """A pass of the model under an edit."""
        widest = max((max(sae.d_in, sae.d_out) for sae in self.saes), default=0)
        most = max((sae.d_sae for sae in self.saes), default=0)
        block = max(BLOCK_BYTES[self.device], MIN_BLOCK_ROWS * most * FLOAT)
        return {
            "forward": self._reading.forward(at_once) + MASK_BYTES * at_once * self.tokens,
            "edits": EDIT_TENSORS * at_once * widest * FLOAT,
            "encoding": int((1 + TOPK_SHARE) * min(block, at_once * most * FLOAT)),
        }

    def _cache(self) -> int:
        """Keys and values of all texts."""
        facts = self.facts
        of_token = 2 * facts.n_layers * facts.n_kv_heads * facts.d_head * COMPUTE_BYTES[self.precision]
        return CACHES * self.rows * self.tokens * of_token


def _most_rows(case: _Case, fits: Callable[[_Case], bool]) -> int:
    """The most rows, no more than those of the case, with which it fits; 0 when not even one does."""
    fewest, most = 0, case.rows
    while fewest < most:
        middle = (fewest + most + 1) // 2
        if fits(replace(case, rows=middle)):
            fewest = middle
        else:
            most = middle - 1
    return fewest


def _ways(case: _Case, budget: Budget, abilities: Abilities) -> Iterator[Way]:
    """Changes of one thing each: the mildest that fits, else the strongest."""
    for name, cases in _milder(case, budget, abilities).items():
        if cases:
            value, one = next(((value, one) for value, one in cases.items() if one.fits(budget)), [*cases.items()][-1])
            yield Way(name, value, one.peak() + budget.reserve_bytes, bool(one.fits(budget)))


def _milder(case: _Case, budget: Budget, abilities: Abilities) -> Mapping[str, dict[str | int, _Case]]:
    """Milder values of what may be changed, in order."""
    lower = [one for one in LADDER if one in abilities.precisions and one in case.facts.weight_bytes]
    lower = lower[lower.index(case.precision) + 1 :] if case.precision in lower else lower
    fewer = _most_rows(case, lambda one: bool(one.fits(budget)))
    without = sorted(case.saes, key=lambda sae: sae.bytes)[:-1]  # the largest goes
    return {
        "precision": {one: replace(case, precision=one) for one in lower if one != case.precision},
        "tokens": {n: replace(case, tokens=n) for n in halves(case.tokens, LEAST_TOKENS)},
        "rows": {max(fewer, 1): replace(case, rows=max(fewer, 1))} if case.rows > 1 else {},
        "saes": {len(without): replace(case, saes=tuple(without))} if without else {},
    }


def _lines(found: Mapping[Phase, Parts], peak: Parts, reserve: int) -> tuple[Line, ...]:
    """Every part that there is in any phase."""
    names = dict.fromkeys(part for parts in found.values() for part in parts)
    lines = [Line(name, max(parts.get(name, 0) for parts in found.values()), peak.get(name, 0)) for name in names]
    return (*lines, Line("reserve", reserve, reserve))


def _verdict(made: SteerPlan) -> str:
    """One sentence for a person."""
    saes = f" with {made.saes} SAE{'s' * (made.saes != 1)}" if made.saes else ""
    texts = f"{made.rows} text{'s' * (made.rows != 1)} of {made.tokens:,} tokens"
    what = f"the model in {made.precision}{saes}, for {texts} at once"
    need, free = size_text(made.total_bytes), made.budget.free_bytes
    reserve = f"with a reserve of {size_text(made.budget.reserve_bytes)}"
    if free is None:
        return f"{what}, takes {need} {reserve}; how much is free is not known"
    if made.fits:
        return f"{what}, fits: {need} {reserve}, of {size_text(free)} free"
    host, host_free = made.host_bytes, made.budget.host_free_bytes
    if made.total_bytes <= free and host is not None and host_free is not None:
        sizes = f"{size_text(host)} of the machine's memory, and {size_text(host_free)} are free"
        return f"{what}, does not fit: it takes {sizes}"
    ways = [f"{way.field} {way.value} ({size_text(way.total_bytes)})" for way in made.ways if way.fits]
    would = f"it would with {' or '.join(ways)}" if ways else "nothing smaller alone makes it fit"
    return f"{what}, does not fit: it takes {need} {reserve}, and {size_text(free)} are free; {would}"
