"""What came of a drill: a table by kind of fault, as Markdown and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tests.drills.arena import Tally


def as_json(tallies: Mapping[str, Tally], seed: int, minutes: float) -> dict[str, Any]:
    kinds = {
        kind: {
            "tries": one.tries, "survived": one.survived, "lost": one.lost, "skipped": one.skipped or None,
            "median_s": _median(one), "worst_s": max(one.seconds, default=None), "told": sorted(one.told),
        }
        for kind, one in tallies.items()
    }  # fmt: skip
    return {"seed": seed, "minutes": round(minutes, 1), "kinds": kinds}


def as_markdown(tallies: Mapping[str, Tally]) -> str:
    lines = [
        "| fault | tries | survived | lost | works again after, median | worst |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, one in tallies.items():
        if not one.tries:
            lines.append(f"| {kind} | 0 | | | {one.skipped} | |")
            continue
        worst = max(one.seconds, default=0.0)
        lines.append(
            f"| {kind} | {one.tries} | {one.survived} | {len(one.lost)} | {_median(one) or 0:.1f} s | {worst:.1f} s |"
        )
    tried, survived = (sum(getattr(one, name) for one in tallies.values()) for name in ("tries", "survived"))
    lines.append(f"| all | {tried} | {survived} | {sum(len(one.lost) for one in tallies.values())} | | |")
    return "\n".join(lines)


def losses(tallies: Mapping[str, Tally]) -> list[str]:
    return [f"{kind}: {what}" for kind, one in tallies.items() for what in one.lost]


def _median(one: Tally) -> float | None:
    return round(statistics.median(one.seconds), 2) if one.seconds else None
