"""Whether a soak was passed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.soak.measure import Sample

if TYPE_CHECKING:
    from tests.soak.run import Found

RSS_SHARE, FDS, LATENCY_MS = 0.10, 5.0, 100.0
_LONG_S, _SETTLED_S, _STRETCH_S = 1800.0, 600.0, 600.0


@dataclass(frozen=True)
class Verdict:
    name: str
    value: str
    limit: str
    ok: bool


def passed(verdicts: Iterable[Verdict]) -> bool:
    return all(one.ok for one in verdicts)


def judge(found: Found) -> list[Verdict]:
    early, late = stretches(found.samples)
    rss = _medians(early, late, lambda one: one.rss_bytes)
    files = _medians(early, late, lambda one: one.fds)
    growth = rss[1] / rss[0] - 1
    worst = percentile(found.latencies_ms, 0.99)
    return [
        Verdict("memory (RSS)", f"{rss[0] / 1e6:.1f} → {rss[1] / 1e6:.1f} MB ({growth:+.1%})", f"±{RSS_SHARE:.0%}",
                abs(growth) <= RSS_SHARE),
        Verdict("file descriptors", f"{files[0]:.0f} → {files[1]:.0f}", f"±{FDS:.0f}", abs(files[1] - files[0]) <= FDS),
        Verdict("event latency, p99", f"{worst:.0f} ms of {len(found.latencies_ms):,}", f"< {LATENCY_MS:.0f} ms",
                worst < LATENCY_MS),
        Verdict("failures", f"{len(found.tally.failures)} of {sum(found.tally.jobs.values())} jobs", "0",
                not found.tally.failures),
        Verdict("left behind", f"{len(found.left)}", "0", not found.left),
        Verdict("database", found.integrity, "ok", found.integrity == "ok"),
    ]  # fmt: skip


def stretches(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Once it has settled, and at the end: minutes 10 to 20 and the last 10, of a short one the last two thirds."""
    end = samples[-1].at_s
    if end >= _LONG_S:
        early = [one for one in samples if _SETTLED_S <= one.at_s < _SETTLED_S + _STRETCH_S]
        return early, [one for one in samples if one.at_s >= end - _STRETCH_S]
    third = len(samples) // 3
    return samples[third : 2 * third] or samples, samples[2 * third :]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; infinite of none: what was not measured is not passed."""
    if not values:
        return float("inf")
    return sorted(values)[max(0, min(len(values) - 1, round(share * len(values)) - 1))]


def _medians(early: Sequence[Sample], late: Sequence[Sample], read: Callable[[Sample], float]) -> tuple[float, float]:
    return statistics.median(map(read, early)), statistics.median(map(read, late))
