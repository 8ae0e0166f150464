"""Numbers and times as people read them; a dash for what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

UNKNOWN = "—"


def count(n: float | None) -> str:
    return UNKNOWN if n is None else f"{n:,.0f}"


def size(n: float | None) -> str:
    if n is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def amount(n: float | None, unit: str) -> str:
    """``12.3 MB``, ``1,228,800 tokens``."""
    return size(n) if unit == "bytes" else f"{count(n)} {unit}".rstrip()


def share(x: float | None) -> str:
    return UNKNOWN if x is None else f"{100 * x:.1f}%" if 0 < x < 0.1 else f"{100 * x:.0f}%"


def density(x: float | None) -> str:
    """Of what is mostly rare: ``0.12%``, ``0.0034%``."""
    return f"{100 * x:.2g}%" if x is not None and 0 < x < 0.1 else share(x)


def part(progress: Mapping[str, Any] | None) -> float | None:
    """How far something is, 0 to 1."""
    return min(progress["done"] / progress["total"], 1.0) if progress and progress["total"] else None


def number(x: float | None, digits: int = 3) -> str:
    return UNKNOWN if x is None else f"{x:.{digits}f}"


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def moment(iso: str) -> datetime:
    """From the API's UTC text."""
    return datetime.fromisoformat(iso.replace("Z", "+00:00"))


def ago(iso: str | None) -> str:
    """``2 days ago``; of what is yet to come ``in 2 days``."""
    if iso is None:
        return UNKNOWN
    seconds = (datetime.now(timezone.utc) - moment(iso)).total_seconds()
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if (n := round(abs(seconds)) // length) >= 1:
            span = f"{n} {unit}{'s' if n > 1 else ''}"
            return f"in {span}" if seconds < 0 else f"{span} ago"
    return "now"


def between(start: str | None, end: str | None) -> float | None:
    """Seconds from one of the API's moments to another."""
    return (moment(end) - moment(start)).total_seconds() if start and end else None
