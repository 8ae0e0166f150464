"""Prometheus' text format 0.0.4, written. Pure.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from mistudiod.meters import Histogram

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """Samples of one name; of a histogram each is a Histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[tuple[Labels, float | Histogram]]


def gauge(name: str, help: str, value: float | None) -> Family:
    """Of one thing; without a sample when it is not known."""
    return Family(name, "gauge", help, [] if value is None else [({}, value)])


def text(families: Iterable[Family]) -> str:
    """Families without a sample are left out."""
    lines = [line for family in families if family.samples for line in _lines(family)]
    return "\n".join(lines) + "\n"


def _lines(family: Family) -> Iterator[str]:
    said = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {family.name} {said}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            yield from _histogram(family.name, labels, value)
        else:
            yield f"{family.name}{_braces(labels)} {value}"


def _histogram(name: str, labels: Labels, found: Histogram) -> Iterator[str]:
    bounds = [*map(str, found.bounds), "+Inf"]
    for bound, count in zip(bounds, accumulate(found.counts), strict=True):
        yield f"{name}_bucket{_braces({**labels, 'le': bound})} {count}"
    yield f"{name}_sum{_braces(labels)} {found.sum}"
    yield f"{name}_count{_braces(labels)} {sum(found.counts)}"


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
