"""Memory, open files, clock, and the settings that were found."""

from __future__ import annotations

import os
import resource
from datetime import datetime, timezone

from mistudiod import host
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.settings import usual_file

FEW_FILES = 4096
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


def files(_subject: Subject) -> Finding:
    """Connections, stores and databases that may be open at once. The daemon takes as many as it is let."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY or limit >= FEW_FILES:
        return Finding("open files", "ok", "without limit" if limit == resource.RLIM_INFINITY else f"up to {limit:,}")
    remedy = "raise it: LimitNOFILE= of the service, nofile in /etc/security/limits.conf, or ulimit -Hn"
    return Finding("open files", "warning", f"at most {limit:,}: many readers at once would use them up", remedy)


def clock(subject: Subject) -> Finding:
    """Set, and kept right: by systemd-timesyncd's own word where that runs, else nothing is said of it."""
    at = datetime.now(timezone.utc)
    if at.year < RELEASED:
        message = f"the clock says {at:%Y-%m-%d}: times are wrong, and downloads will be refused"
        return Finding("clock", "problem", message, "set it: sudo timedatectl set-ntp true")
    timesync = subject.root / "run/systemd/timesync"
    if timesync.is_dir() and not (timesync / "synchronized").exists():
        message = f"{at:%Y-%m-%d %H:%M} UTC, and no time server has answered since the machine was started"
        return Finding("clock", "warning", message, "see: timedatectl timesync-status")
    return Finding("clock", "ok", f"{at:%Y-%m-%d %H:%M} UTC")


def settings(subject: Subject) -> Finding:
    path = subject.config or usual_file(os.environ)
    given = sorted(name for name in os.environ if name.startswith("MISTUDIO_"))
    beside = f"; {', '.join(given)} in the environment" if given else ""
    return Finding("settings", "ok", f"{path or 'no settings file'}{beside}")
