"""What a training will take, before it runs: bytes, seconds, whether it fits, and what would. Pure arithmetic.

What a person set is never changed, only refused with numbers; what was left open is chosen here and marked automatic.
The autoencoders' batch and schedule are never automatic: less memory must not mean other science.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mistudiod.budget import Budget, Device
from mistudiod.facts import ModelFacts, weight_bytes
from mistudiod.plan_answer import Choice, Line, Plan, Value, Way, verdict
from mistudiod.plan_choices import (
    LEAST_MICRO_TOKENS,
    NAMES,
    Step,
    all_given_up,
    fewer,
    halves,
    least_buffer,
    made_fit,
    steps,
    usual_buffer,
)
from mistudiod.plan_disk import disk_bytes
from mistudiod.plan_measured import Measured, as_fast, nearest
from mistudiod.plan_model import OF_DTYPE, Precision
from mistudiod.plan_train import PASS_TOKENS, Choices, Parts, Phase, Run, host_bytes, like, phases, run_of
from mistudiod.specs import Train

LADDER: tuple[Precision, ...] = ("bf16", "int8", "nf4")  # from what is nearest to the model as it was trained
LEAST_WIDTH = 256
# A whole model that takes more of what is free is not kept unasked: on a CPU it would also be slow.
WHOLE_SHARE: dict[Device, float] = {"cpu": 0.25, "cuda": 1.0, "unified": 1.0}
RECHOSEN = ("micro_tokens", "whole_model")  # of what was settled: less of them may still be taken for memory's sake


@dataclass(frozen=True)
class Abilities:
    """What the worker on this machine can do, as its probes found."""

    precisions: tuple[Precision, ...] = ("fp32",)


@dataclass(frozen=True)
class Before:
    """What there is of a training already.

    ``settled``: automatic choices, which a training that goes on must keep; of ``RECHOSEN`` it never takes more.
    ``tokens``: that its SAE was trained on by another job. ``stored_bytes``: of the activations that are to be kept,
    by precision.
    """

    settled: Mapping[str, Value] = field(default_factory=dict)
    tokens: int = 0
    stored_bytes: Mapping[str, int] = field(default_factory=dict)


PLAIN = Abilities()  # of every worker
NEW = Before()
NOTHING: Mapping[str, Sequence[Measured]] = {}


def plan(
    spec: Train,
    facts: ModelFacts,
    tokenization: Mapping[str, Any],
    budget: Budget,
    remembered: Mapping[str, Sequence[Measured]] = NOTHING,
    abilities: Abilities = PLAIN,
    before: Before = NEW,
) -> Plan:
    """Plan a training of ``spec`` on a tokenization (its ``tokenization.json``); raises UnknownHook, UnknownModel.

    ``remembered``: what like runs took, by precision.
    """
    case = _Case(spec, facts, tokenization, budget, remembered, abilities, before)
    run, (chosen, fits) = case.run, case.chosen
    found = phases(run, chosen)
    peak_phase, peak = _peak(found)
    excess = case.excess(chosen)
    made = Plan(
        budget=budget,
        choices={name: Choice(getattr(chosen, name), case.given(name) is None) for name in NAMES},
        saes=len(run.saes),
        passes=len(run.passes(chosen)),
        layers=run.reading(chosen).layers,
        model_layers=facts.n_layers,
        parts=_lines(found, peak_phase, excess, budget.reserve_bytes),
        phases={phase: sum(parts.values()) + excess for phase, parts in found.items()},
        peak_phase=peak_phase,
        formula_bytes=peak,
        peak_bytes=peak + excess,
        total_bytes=peak + excess + budget.reserve_bytes,
        host_bytes=case.host_bytes(chosen),
        measured=case.like(chosen) is not None,
        fits=fits,
        ways=tuple(case.ways()) if fits is False else (),
        disk_bytes=disk_bytes(run, chosen, before.stored_bytes.get(chosen.precision, 0)),
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
    before: Before

    @cached_property
    def run(self) -> Run:
        return run_of(self.spec, self.facts, self.tokenization, self.budget.device)

    @cached_property
    def chosen(self) -> tuple[Choices, bool | None]:
        """The first choices that fit, and whether they do; when none do, those that take least."""
        if self.budget.free_bytes is None:
            return self._first(self._precisions()[0]), None
        tightest = []
        for precision in self._precisions():
            first = self._first(precision)
            open_steps = self._open_steps(first)
            least = all_given_up(first, open_steps)
            # What was measured may be of one number of SAEs at once only: then less is not always less.
            if self.remembered.get(precision) or self._fits(least):
                found, fits = made_fit(first, open_steps, self._fits)
                if fits:
                    return found, True
            tightest.append(least)
        return min(tightest, key=self.total), False

    def like(self, choices: Choices) -> Measured | None:
        known = self.remembered.get(choices.precision, ())
        if not known:
            return None
        mine = like(self.run, choices)
        return nearest(known, mine["parameters"], mine["entries"], mine["batch_tokens"])

    def excess(self, choices: Choices) -> int:
        """What a like run took beyond the formula."""
        found = self.like(choices)
        return found.excess_bytes if found else 0

    def given(self, name: str) -> Any:
        """What a person set, None when it was left open."""
        value = getattr(self.spec, name)
        return None if value == "auto" else value

    def fixed(self, name: str) -> Any:
        """What is not to be chosen: a person set it, or a training that goes on hangs on it."""
        given, settled = self.given(name), self.before.settled.get(name)
        return settled if given is None and name not in RECHOSEN else given

    def total(self, choices: Choices) -> int:
        return _peak(phases(self.run, choices))[1] + self.excess(choices) + self.budget.reserve_bytes

    def host_bytes(self, choices: Choices) -> int | None:
        return None if self.budget.host_free_bytes is None else host_bytes(self.run, choices)

    def _fits(self, choices: Choices) -> bool:
        """Where it is known what is free."""
        host, free = self.budget.host_free_bytes, self.budget.free_bytes
        assert free is not None
        enough = host is None or host_bytes(self.run, choices) <= host
        return enough and self.total(choices) <= free

    def seconds(self, choices: Choices) -> float | None:
        known = as_fast(self.remembered.get(choices.precision, ()), like(self.run, choices)["sizes"])
        if known is None or not known.tokens_per_s:
            return None
        tokens = max(0, self.run.tokens - self.before.tokens) * len(self.run.passes(choices))
        return tokens / known.tokens_per_s + (known.other_s or 0.0)

    def ways(self) -> Iterator[Way]:
        """Changes of what a person set, one field each: the mildest that fits, else the strongest."""
        for name, values in self._others().items():
            strongest = self._with(name, values[-1])
            fitting = (way for value in values if (way := self._with(name, value)).fits)
            yield next(fitting, strongest) if strongest.fits else strongest

    def _with(self, name: str, value: Any) -> Way:
        case = replace(self, spec=self.spec.model_copy(update={name: value}))
        chosen, fits = case.chosen
        lone = value[0] if isinstance(value, list) and len(value) == 1 else value
        return Way(name, lone, case.total(chosen), bool(fits))

    def _others(self) -> dict[str, list[Any]]:
        """Milder values of what was set, in order."""
        spec = self.spec
        found: dict[str, list[Any]] = {}
        if self.given("precision") is not None:
            found["precision"] = [one for one in self._ladder() if one != self.given("precision")]
        for name, values in {
            "whole_model": [False] if spec.whole_model else [],
            "forward_tokens": halves(spec.forward_tokens or 0, self.run.context),
            "buffer_tokens": halves(spec.buffer_tokens or 0, least_buffer(spec.batch_tokens)),
            "micro_tokens": halves(spec.micro_tokens or 0, LEAST_MICRO_TOKENS),
            "saes_at_once": fewer(spec.saes_at_once or 0, len(self.run.saes)),
            "batch_tokens": halves(spec.batch_tokens, LEAST_MICRO_TOKENS),
            "width": _narrower(spec.width, max(LEAST_WIDTH, *spec.k)),
        }.items():
            found[name] = list(values)
        return {name: values for name, values in found.items() if values}

    def _first(self, precision: Precision) -> Choices:
        """What is chosen where memory is no matter."""
        spec = self.spec
        open_to = Choices(
            precision,
            max(PASS_TOKENS[self.budget.device], self.run.context),
            usual_buffer(self.run.tokens, spec.batch_tokens),
            int(self.before.settled.get("micro_tokens", spec.batch_tokens)),
            len(self.run.saes),
            bool(self.before.settled.get("whole_model", self._may_be_whole(precision))),
        )
        fixed = {name: self.fixed(name) for name in NAMES[1:] if self.fixed(name) is not None}
        return replace(open_to, **fixed)

    def _may_be_whole(self, precision: Precision) -> bool:
        """Whether the whole model is small enough to be kept unasked."""
        free, share = self.budget.free_bytes, WHOLE_SHARE[self.budget.device]
        return free is None or weight_bytes(self.facts, precision) <= share * free

    def _open_steps(self, first: Choices) -> list[Step]:
        found = steps(first, self.run.context, self.spec.batch_tokens, len(self.run.saes))
        return [(name, values) for name, values in found if self.fixed(name) is None]

    def _precisions(self) -> list[Precision]:
        fixed = self.fixed("precision")
        return [fixed] if fixed else self._ladder()

    def _ladder(self) -> list[Precision]:
        """Automatic precisions that can be had: as the model is stored, and on a CPU, slow in 16 bits, fp32 before."""
        if self.facts.quantized:
            return [self.facts.quantized]  # type: ignore[list-item]
        stored = OF_DTYPE.get(self.facts.dtype, "fp32")
        first: Precision = "fp32" if self.budget.device == "cpu" else stored
        ladder = list(dict.fromkeys((first, *LADDER)))
        return [one for one in ladder if one in self.abilities.precisions] or [first]


def _narrower(widths: Sequence[int], least: int) -> Iterator[list[int]]:
    """Without the widest, one after another; then ever less of the last."""
    left = sorted(widths)
    while len(left) > 1:
        left = left[:-1]
        yield [width for width in widths if width in left]
    for width in halves(left[0], least):
        yield [width]


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
