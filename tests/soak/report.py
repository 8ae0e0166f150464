"""What came of a soak, for machines (JSON), for the documentation (Markdown) and for the eye (SVG)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mistudio import svg

from tests.soak.measure import Sample
from tests.soak.run import Found
from tests.soak.verdict import percentile

_POINTS = 600  # of a curve
_WIDTH, _HEIGHT, _LEFT = 760.0, 150.0, 80.0


def write(found: Found, path: Path) -> None:
    """``path`` and, beside it, a ``.svg`` and a ``.md``."""
    path.write_text(json.dumps(as_json(found), indent=1))
    path.with_suffix(".svg").write_text(picture(found.samples))
    path.with_suffix(".md").write_text(markdown(found))


def as_json(found: Found) -> dict[str, Any]:
    return {
        "seconds": round(found.seconds, 1),
        "verdicts": [asdict(one) for one in found.verdicts],
        "jobs": dict(found.tally.jobs),
        "rounds": dict(found.tally.rounds),
        "refusals": dict(found.tally.refusals),
        "failures": found.tally.failures,
        "left": found.left,
        "latency_ms": _latencies(found.latencies_ms),
        "loop_late_ms": _late(found.samples),
        "samples": [asdict(one) for one in found.samples],
    }


def markdown(found: Found) -> str:
    jobs = ", ".join(f"{count} {kind}" for kind, count in sorted(found.tally.jobs.items()))
    refused = ", ".join(f"{count} {code}" for code, count in sorted(found.tally.refusals.items()))
    latency = _latencies(found.latencies_ms)
    last = found.samples[-1]
    lines = [
        f"{found.seconds / 60:.0f} minutes, {sum(found.tally.jobs.values())} jobs ({jobs}); "
        f"{sum(found.tally.rounds.values()):,} rounds of work, refused while others were at work: {refused or 'none'}.",
        "",
        "| | measured | limit | |",
        "|---|---|---|---|",
        *(f"| {v.name} | {v.value} | {v.limit} | {'passed' if v.ok else '**not passed**'} |" for v in found.verdicts),
        "",
        f"Event latency: {latency['p50']} ms at the median, {latency['p99']} ms p99, {latency['worst']} ms at worst. "
        f"The event loop was {_late(found.samples)} ms late on average. At the end: {last.threads} threads, "
        f"a database of {last.database_bytes / 1e6:.1f} MB and {last.wal_bytes / 1e6:.1f} MB of write-ahead log.",
    ]
    return "\n".join([*lines, *(f"- {said}" for said in found.tally.failures[:20]), ""])


def picture(samples: Sequence[Sample]) -> str:
    """Memory and open files over time."""
    step = max(1, len(samples) // _POINTS)
    shown = samples[::step]
    curves: tuple[tuple[str, str, Callable[[Sample], float]], ...] = (
        ("Memory of the daemon (RSS)", "MB", lambda one: one.rss_bytes / 1e6),
        ("Open files", "", lambda one: float(one.fds)),
        ("Database and its log", "MB", lambda one: (one.database_bytes + one.wal_bytes) / 1e6),
    )
    parts: list[str] = []
    for number, (title, unit, read) in enumerate(curves):
        values = [read(one) for one in shown]
        box = (_LEFT, 40 + number * (_HEIGHT + 80), _WIDTH, _HEIGHT)
        end = max(shown[-1].at_s / 60, 0.1)
        plot = svg.Plot(box, (0.0, end), (0.0, max(max(values) * 1.15, 1.0)), title, ("minutes", unit))
        plot.ticks()
        places = [plot.place(one.at_s / 60, value) for one, value in zip(shown, values, strict=True)]
        parts += [*plot.parts, svg.line(places, number)]
    return svg.document(_LEFT + _WIDTH + 30, 40 + len(curves) * (_HEIGHT + 80), "A soak of miStudio", parts)


def _latencies(values: Sequence[float]) -> dict[str, float | int | None]:
    if not values:
        return {"events": 0, "p50": None, "p99": None, "worst": None}
    return {
        "events": len(values), "p50": round(statistics.median(values), 1), "p99": round(percentile(values, 0.99), 1),
        "worst": round(max(values), 1),
    }  # fmt: skip


def _late(samples: Sequence[Sample]) -> float:
    """Milliseconds, the mean over the soak."""
    looks = samples[-1].looks - samples[0].looks
    return round((samples[-1].late_s - samples[0].late_s) / looks * 1000, 2) if looks else 0.0
