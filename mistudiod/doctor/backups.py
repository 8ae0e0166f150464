"""The nightly backups."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from mistudiod.doctor.finding import Finding, Subject
from mistudiod.kept_backups import backups_in, failed, made_at, parse_time
from mistudiod.paths import Paths

_OLD = timedelta(days=3)  # a machine may be switched off over a weekend


def backups(subject: Subject) -> Finding | None:
    """Nothing where there is nothing to back up yet."""
    paths, settings = Paths(subject.settings.data), subject.settings
    if not paths.database.exists():
        return None
    if parse_time(settings.backup_at) is None:
        return Finding("backups", "ok", "none is made at night: backup_at is off")
    times = [at for path in backups_in(paths.backups) if (at := made_at(path)) is not None]
    newest = f"the newest is of {max(times):%Y-%m-%d %H:%M} UTC" if times else "there is none yet"
    if (why := failed(paths.backups)) is not None:
        remedy = "mend that: it is tried again each hour; mistudio backup --to FOLDER makes one elsewhere"
        return Finding("backups", "warning", f"the nightly backup failed: {why}; {newest}", remedy)
    if times and datetime.now(timezone.utc) - max(times) > _OLD:
        remedy = "leave the studio running for ten minutes: one that was missed is made then"
        return Finding("backups", "warning", newest, remedy)
    return Finding("backups", "ok", f"each night at {settings.backup_at}; {newest}")
