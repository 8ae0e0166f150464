"""Memory, clock, and the settings that were found."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from mistudiod import host
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.settings import usual_file

LITTLE_BYTES = 1_000_000_000
RELEASED = 2026  # the clock of a board without a battery starts long before


def memory(subject: Subject) -> Finding | None:
    found = host.memory(subject.root, host.meminfo(subject.root))
    total, available = found["total_bytes"], found["available_bytes"]
    if total is None or available is None:
        return None
    limit = f", at most {found['limit_bytes'] / 1e9:,.1f} GB for the studio" if found["limit_bytes"] else ""
    message = f"{available / 1e9:,.1f} of {total / 1e9:,.1f} GB available{limit}"
    if available < LITTLE_BYTES:
        return Finding("memory", "warning", f"{message}: few jobs can run", "close other programs")
    return Finding("memory", "ok", message)


def clock(_subject: Subject) -> Finding:
    at = datetime.now(timezone.utc)
    if at.year < RELEASED:
        message = f"the clock says {at:%Y-%m-%d}: times are wrong, and downloads will be refused"
        return Finding("clock", "problem", message, "set it: sudo timedatectl set-ntp true")
    return Finding("clock", "ok", f"{at:%Y-%m-%d %H:%M} UTC")


def settings(subject: Subject) -> Finding:
    path = subject.config or usual_file(os.environ)
    given = sorted(name for name in os.environ if name.startswith("MISTUDIO_"))
    beside = f"; {', '.join(given)} in the environment" if given else ""
    return Finding("settings", "ok", f"{path or 'no settings file'}{beside}")
