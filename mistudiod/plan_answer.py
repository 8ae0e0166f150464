"""The plan of a training: what it says, and the sentence that sums it up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mistudiod.budget import Budget
from mistudiod.plan_train import Phase

Value = str | int | bool  # of a choice


@dataclass(frozen=True)
class Choice:
    value: Value
    automatic: bool


@dataclass(frozen=True)
class Line:
    """One part of the memory: the most it takes in any phase, and what of it is there at the peak."""

    part: str
    bytes: int
    at_peak_bytes: int


@dataclass(frozen=True)
class Way:
    """Another value of one field of the spec, and what the run would take with it."""

    field: str
    value: Value | list[int]
    total_bytes: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """``total_bytes`` is the peak and the reserve; ``fits`` is None when it is unknown what is free."""

    budget: Budget
    choices: dict[str, Choice]
    saes: int  # that are made
    passes: int  # over the text, one after another: as many SAEs as memory takes are trained in each
    layers: int  # of the model, built and read
    model_layers: int
    parts: tuple[Line, ...]
    phases: dict[Phase, int]
    peak_phase: Phase
    formula_bytes: int  # the peak without what was measured before
    peak_bytes: int
    total_bytes: int
    host_bytes: int | None  # of the machine's memory, beside a GPU with its own
    measured: bool  # a measurement of a like run corrects the peak
    fits: bool | None
    ways: tuple[Way, ...]  # what would fit, when this does not
    disk_bytes: int
    seconds: float | None
    verdict: str = field(default="")

    def about(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def verdict(made: Plan) -> str:
    """One sentence for a person."""
    need, free = size_text(made.total_bytes), made.budget.free_bytes
    reserve = f"with a reserve of {size_text(made.budget.reserve_bytes)}"
    if free is None:
        return f"it takes {need} {reserve}{_passes(made)}; how much is free is not known"
    if made.fits:
        return f"it fits: {need} {reserve}, of {size_text(free)} free{_passes(made)}"
    if made.total_bytes <= free and made.host_bytes is not None and made.budget.host_free_bytes is not None:
        host, host_free = size_text(made.host_bytes), size_text(made.budget.host_free_bytes)
        return f"it does not fit: it takes {host} of the machine's memory{_passes(made)}, and {host_free} are free"
    ways = [f"{way.field} {_plain(way.value)} ({size_text(way.total_bytes)})" for way in made.ways if way.fits]
    would = f"it would with {' or '.join(ways)}" if ways else "no smaller setting alone makes it fit"
    return f"it does not fit: it takes {need} {reserve}{_passes(made)}, and {size_text(free)} are free; {would}"


def _passes(made: Plan) -> str:
    """`` in 3 passes of 2 SAEs``; nothing when all are trained in one."""
    if made.passes == 1:
        return ""
    n = made.choices["saes_at_once"].value
    most = "" if made.saes == made.passes * int(n) else "up to "
    return f", in {made.passes} passes of {most}{n} SAE{'s' if n != 1 else ''}"


def _plain(value: Value | list[int]) -> str:
    """As the command line shows it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def size_text(n: int) -> str:
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:,.0f} MB"
