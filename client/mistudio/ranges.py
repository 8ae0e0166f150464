"""Calibrated ranges: how strongly a feature must be added to change the model by so much, and what is too much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mistudio import human
from mistudio.grids import grid
from mistudio.output import Canvas, Line
from mistudio.visible import visible

Range = Mapping[str, Any]
_STEPS = ("0.1", "0.5", "2")  # nats
_FAR = 1.5  # times the strength of 2 nats
WEAK = 0.05  # nats


def table(found: Sequence[Range], labels: Mapping[int, str], canvas: Canvas) -> Iterator[Line]:
    """A line for each feature: strengths from suppressed to amplified, by the nats that they move the model."""
    header = ["FEATURE", "−2 NATS", "−0.5", "−0.1", "+0.1", "+0.5", "+2 NATS"]
    rows = [
        [
            str(one["feature"]),
            *(_strength(one["kl"][step]["low"]) for step in reversed(_STEPS)),
            *(_strength(one["kl"][step]["high"]) for step in _STEPS),
            human.number(one["maximum"], 2),
            breaks(one),
            visible(labels.get(one["feature"], "")),
        ]
        for one in found
    ]
    yield [
        ("strengths, in units of the feature's largest activation (MAX), that move the model by so many nats", "dim")
    ]
    yield from grid([*header, "MAX", "BREAKS", "LABEL"], rows, canvas, "r" * 8 + "ll")


def _strength(value: float | None) -> str:
    return human.UNKNOWN if value is None else f"{value:+.2g}" if abs(value) < 10 else f"{value:+.0f}"


def breaks(found: Range) -> str:
    """``below −6, above +5.2: repetition``."""
    at = found["breaks"]
    sides = [
        f"{word} {_strength(at[side])}" for word, side in (("below", "low"), ("above", "high")) if at[side] is not None
    ]
    return f"{', '.join(sides)}: {at['why']}" if sides else human.UNKNOWN


def sentence(found: Range) -> str:
    """``0.5 nats at −1.2 and +0.9, 2 nats at …; breaks above +5: repetition``."""
    said = []
    for step in _STEPS:
        sides = [_strength(found["kl"][step][side]) for side in ("low", "high") if found["kl"][step][side] is not None]
        if sides:
            said.append(f"{step} nats at {' and '.join(sides)}")
    broken = breaks(found)
    if not said:
        return "no strength that was tried moves the model"
    return ", ".join(said) + (f"; breaks {broken}" if broken != human.UNKNOWN else "")


def is_far(strength: float, found: Range) -> bool:
    """Whether it is beyond what breaks the text, or far beyond what changes it by 2 nats."""
    side = "high" if strength > 0 else "low"
    broken, most = found["breaks"][side], found["kl"]["2"][side]
    return any(
        limit is not None and abs(strength) > abs(limit) for limit in (broken, None if most is None else most * _FAR)
    )
