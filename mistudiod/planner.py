"""What a training will take, before it runs: bytes, seconds, whether it fits, and what would. Pure arithmetic.

What a person set is never changed, only refused with numbers; what was left open is chosen here and marked automatic.
The autoencoder's batch and schedule are never automatic: less memory must not mean other science.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mistudiod.budget import Budget
from mistudiod.facts import ModelFacts
from mistudiod.plan_answer import Choice, Line, Plan, Way, verdict
from mistudiod.plan_measured import Measured, as_fast, nearest
from mistudiod.plan_model import OF_DTYPE, Precision
from mistudiod.plan_train import (
    BLOCK_TOKENS,
    PASS_TOKENS,
    Choices,
    Parts,
    Phase,
    Run,
    disk_bytes,
    host_bytes,
    phases,
)
from mistudiod.specs import One, Train

LADDER: tuple[Precision, ...] = ("bf16", "int8", "nf4")  # from what is nearest to the model as it was trained
LEAST_BUFFER_TOKENS = 8_192  # a smaller one shuffles too little
LEAST_MICRO_TOKENS = 256
LEAST_WIDTH = 256
CHOICES = ("precision", "forward_tokens", "buffer_tokens", "micro_tokens")


@dataclass(frozen=True)
class Abilities:
    """What the worker on this machine can do, as its probes found."""

    precisions: tuple[Precision, ...] = ("fp32",)


PLAIN = Abilities()  # of every worker
NOTHING: Mapping[str, Sequence[Measured]] = {}


def plan(
    spec: Train,
    facts: ModelFacts,
    tokenization: Mapping[str, Any],
    budget: Budget,
    remembered: Mapping[str, Sequence[Measured]] = NOTHING,
    abilities: Abilities = PLAIN,
    settled: Mapping[str, str | int] | None = None,
) -> Plan:
    """Plan a training of ``spec`` on a tokenization (its ``tokenization.json``); raises UnknownHook, UnknownModel.

    ``remembered``: what like runs took, by precision. ``settled``: automatic choices that were made before, which a
    training that goes on must keep.
    """
    case = _Case(spec, facts, tokenization, budget, remembered, abilities, settled or {})
    run, chosen = case.run, case.choose()
    found = phases(run, chosen)
    peak_phase, peak = _peak(found)
    excess = case.excess(chosen)
    total = peak + excess + budget.reserve_bytes
    host = host_bytes(run) if budget.host_free_bytes is not None else None
    fits = case.fits(chosen)
    made = Plan(
        budget=budget,
        choices=case.marked(chosen),
        layers=case.layers(chosen),
        model_layers=facts.n_layers,
        parts=_lines(found, peak_phase, excess, budget.reserve_bytes),
        phases={phase: sum(parts.values()) + excess for phase, parts in found.items()},
        peak_phase=peak_phase,
        formula_bytes=peak,
        peak_bytes=peak + excess,
        total_bytes=total,
        host_bytes=host,
        measured=case.like(chosen) is not None,
        fits=fits,
        ways=tuple(case.ways()) if fits is False else (),
        disk_bytes=disk_bytes(run),
        seconds=case.seconds(chosen),
    )
    return replace(made, verdict=verdict(made))


@dataclass(frozen=True)
class _Case:
    """What is planned, with all that bears on it."""

    spec: Train
    facts: ModelFacts
    tokenization: Mapping[str, Any]
    budget: Budget
    remembered: Mapping[str, Sequence[Measured]]
    abilities: Abilities
    settled: Mapping[str, str | int]

    @property
    def one(self) -> One:
        return self.spec.saes()[0]

    @property
    def run(self) -> Run:
        spec, one, context = self.spec, self.one, int(self.tokenization["context"])
        steps = spec.steps or math.ceil(spec.tokens / spec.batch_tokens)
        return Run(
            device=self.budget.device,
            facts=self.facts,
            hook=one.hook,
            width=one.width,
            k=one.k,
            batch_tokens=spec.batch_tokens,
            tokens=steps * spec.batch_tokens,
            context=context,
            train_windows=int(self.tokenization["train_windows"]),
            held_out_tokens=int(self.tokenization["held_out_windows"]) * context,
        )

    def like(self, choices: Choices) -> Measured | None:
        known = self.remembered.get(choices.precision, ())
        return nearest(known, self.one.width, self.one.k, self.spec.batch_tokens)

    def excess(self, choices: Choices) -> int:
        """What a like run took beyond the formula."""
        like = self.like(choices)
        return like.excess_bytes if like else 0

    def given(self, name: str) -> Any:
        """What a person set, None when it was left open."""
        value = getattr(self.spec, name)
        return None if value == "auto" else value

    def fixed(self, name: str) -> Any:
        """What is not to be chosen: a person set it, or it was chosen before."""
        return self.settled.get(name) if self.given(name) is None else self.given(name)

    def choose(self) -> Choices:
        """The first of the candidates that fits; when none does, what would be taken if there were room."""
        candidates = list(self._candidates())
        return next((one for one in candidates if self.fits(one) is not False), candidates[0])

    def marked(self, chosen: Choices) -> dict[str, Choice]:
        return {name: Choice(getattr(chosen, name), self.given(name) is None) for name in CHOICES}

    def layers(self, chosen: Choices) -> int:
        return self.run.reading(chosen).layers

    def total(self, choices: Choices) -> int:
        return _peak(phases(self.run, choices))[1] + self.excess(choices) + self.budget.reserve_bytes

    def fits(self, choices: Choices) -> bool | None:
        if self.budget.free_bytes is None:
            return None
        host = self.budget.host_free_bytes
        enough = host is None or host_bytes(self.run) <= host
        return enough and self.total(choices) <= self.budget.free_bytes

    def seconds(self, choices: Choices) -> float | None:
        remembered = self.remembered.get(choices.precision, ())
        known = as_fast(remembered, self.one.width, self.one.k, self.spec.batch_tokens)
        if known is None or not known.tokens_per_s:
            return None
        return self.run.tokens / known.tokens_per_s + (known.other_s or 0.0)

    def ways(self) -> Iterator[Way]:
        """Changes of what a person set, one field each: the mildest that fits, else the strongest."""
        for name, values in self._others().items():
            tried = [_Tried(value, replace_spec(self, name, value)) for value in values]
            best = next((one for one in tried if one.case.fits(one.case.choose())), tried[-1] if tried else None)
            if best:
                total = best.case.total(best.case.choose())
                yield Way(name, best.value, total, bool(best.case.fits(best.case.choose())))

    def _others(self) -> dict[str, list[str | int]]:
        """Milder values of what was set, in order."""
        spec, found = self.spec, dict[str, list[str | int]]()
        if self.given("precision") is not None:
            found["precision"] = [one for one in self._ladder() if one != self.given("precision")]
        for name in CHOICES[1:]:
            if self.given(name) is not None:
                found[name] = list(_halves(self.given(name), self._least()[name]))
        found["batch_tokens"] = list(_halves(spec.batch_tokens, LEAST_MICRO_TOKENS))
        found["width"] = list(_halves(self.one.width, max(LEAST_WIDTH, self.one.k)))
        return {name: values for name, values in found.items() if values}

    def _least(self) -> dict[str, int]:
        return {
            "forward_tokens": self.run.context,
            "buffer_tokens": max(LEAST_BUFFER_TOKENS, 2 * self.spec.batch_tokens),
            "micro_tokens": LEAST_MICRO_TOKENS,
        }

    def _candidates(self) -> Iterator[Choices]:
        """Precisions in order; within one, less and less at a time: that costs speed, a lower precision costs truth."""
        least = self._least()
        for precision in [self.fixed("precision")] if self.fixed("precision") else self._ladder():
            one = Choices(
                precision,
                self.fixed("forward_tokens") or max(PASS_TOKENS[self.budget.device], self.run.context),
                self.fixed("buffer_tokens") or BLOCK_TOKENS,
                self.fixed("micro_tokens") or self.spec.batch_tokens,
            )
            yield one
            for name in CHOICES[1:]:
                if self.fixed(name) is None:
                    for value in _halves(getattr(one, name), least[name]):
                        one = replace(one, **{name: value})  # type: ignore[arg-type]
                        yield one

    def _ladder(self) -> list[Precision]:
        """Automatic precisions that can be had: as the model is stored, and on a CPU, slow in 16 bits, fp32 before."""
        if self.facts.quantized:
            return [self.facts.quantized]  # type: ignore[list-item]
        stored = OF_DTYPE.get(self.facts.dtype, "fp32")
        first: Precision = "fp32" if self.budget.device == "cpu" else stored
        ladder = list(dict.fromkeys((first, *LADDER)))
        return [one for one in ladder if one in self.abilities.precisions] or [first]


@dataclass(frozen=True)
class _Tried:
    value: str | int
    case: _Case


def replace_spec(case: _Case, name: str, value: str | int) -> _Case:
    changed: dict[str, Any] = {name: [value] if name == "width" else value}
    return replace(case, spec=case.spec.model_copy(update=changed))


def _halves(value: int, least: int) -> Iterator[int]:
    """Ever smaller values, down to ``least``."""
    while value > least:
        value = max(least, value // 2)
        yield value


def _peak(found: Mapping[Phase, Parts]) -> tuple[Phase, int]:
    sizes = {phase: sum(parts.values()) for phase, parts in found.items()}
    return max(sizes.items(), key=lambda item: item[1])


def _lines(found: Mapping[Phase, Parts], peak: Phase, excess: int, reserve: int) -> tuple[Line, ...]:
    """Every part that there is in any phase; what was measured beyond the formula is the runtime's."""
    names = dict.fromkeys(part for parts in found.values() for part in parts)
    lines = []
    for name in names:
        more = excess if name == "runtime" else 0
        most, at_peak = max(parts.get(name, 0) for parts in found.values()), found[peak].get(name, 0)
        lines.append(Line(name, most + more, at_peak + more))
    return (*lines, Line("reserve", reserve, reserve))
