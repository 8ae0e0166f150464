"""Two steerings: in what they differ, and their texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mistudio import edits, human, steered
from mistudio.grids import grid
from mistudio.output import Canvas, Line
from mistudio.visible import cut, visible

Steering = Mapping[str, Any]
_VALUE_CELLS = 60


def differences(a: Steering, b: Steering) -> dict[str, tuple[Any, Any]]:
    """``{field: (of a, of b)}`` of what was asked for and of what it was made with."""
    found: dict[str, tuple[Any, Any]] = {}
    for one, other in ((a["spec"], b["spec"]), (a["result"]["made"], b["result"]["made"])):
        found |= {
            name: (one.get(name), other.get(name)) for name in {**one, **other} if one.get(name) != other.get(name)
        }
    return found


def texts_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that were written: of each sample the baseline, then the steered ones."""
    found = []
    for baseline in result["baselines"]:
        found += [baseline, *(one for one in result["steered"] if one["sample"] == baseline["sample"])]
    return found


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    """How many texts of two results are not the same to the letter."""
    one, other = texts_of(a), texts_of(b)
    pairs = zip(one, other, strict=False)
    return sum((x["text"], x["ids"]) != (y["text"], y["ids"]) for x, y in pairs) + abs(len(one) - len(other))


def lines(a: Steering, b: Steering, canvas: Canvas) -> Iterator[Line]:
    """What was asked otherwise, and the texts beside each other as far as both have them."""
    found = differences(a, b)
    head = ["", str(a["id"]), str(b["id"])]
    if found:
        rows = [[name, *(_short(side, a["sae"]) for side in sides)] for name, sides in found.items()]
        yield from grid(head, rows, canvas)
    else:
        yield [("both were asked for and made alike", "")]
    own = a["sae"]
    for one, other in zip(_titled(a, own), _titled(b, own), strict=False):
        yield []
        yield from steered.beside(
            (f"{a['id']}  {one[0]}", f"{b['id']}  {other[0]}"), one[1]["text"], other[1]["text"], canvas
        )
        kl = f"KL {_kl(one[1])} and {_kl(other[1])} nats, " if "kl" in one[1] else ""
        yield [(f"  {kl}perplexity {_perplexity(one[1])} and {_perplexity(other[1])}", "dim")]


def _titled(steering: Steering, sae: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The baseline of the first sample, then every steered text."""
    yield "baseline", steering["result"]["baseline"]
    for one in steering["result"]["steered"]:
        yield edits.joined(one["strengths"], sae), one


def _kl(text: Mapping[str, Any]) -> str:
    return steered.nats(text.get("kl"))


def _perplexity(text: Mapping[str, Any]) -> str:
    return steered.perplexity(text["perplexity"])


def _short(value: Any, sae: str) -> str:
    if value is None:
        return human.UNKNOWN
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "feature" in value[0]:
        value = edits.joined(value, sae)
    return cut(visible(str(value)), _VALUE_CELLS)
