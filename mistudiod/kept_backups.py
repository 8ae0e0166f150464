"""Backups that lie in the folder ``backups``: their names, which is the newest, when another is due, which can go.

Pure but for the look into the folder. ``mistudio-HOST-20261130-0412.tar`` was made at that moment, in UTC; copies that
are made before a migration are called ``mistudio-….db``.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Collection
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

OFF = "off"
FAILED = "failed.json"  # there while the nightly backup fails: when it was last tried, and why
_NAME = re.compile(r"mistudio-.+-(\d{8}-\d{4})\.tar")
_FORM = "%Y%m%d-%H%M"


def parse_time(text: str) -> time | None:
    """``03:30``, of the machine's own clock; None for ``off``. Raises ValueError."""
    if text.strip().lower() == OFF:
        return None
    match = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*", text)
    try:
        return time(int(match[1]), int(match[2])) if match else _refuse(text)
    except ValueError:
        return _refuse(text)


def _refuse(text: str) -> time:
    raise ValueError(f"must be a time of day, as 03:30, or off, not {text!r}")


def name_of(at: datetime) -> str:
    """What a backup of that moment is called."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")[:40] or "studio"
    return f"mistudio-{host}-{at.astimezone(timezone.utc).strftime(_FORM)}.tar"


def made_at(path: Path) -> datetime | None:
    """By its name; None for what is no backup."""
    match = _NAME.fullmatch(path.name)
    try:
        return datetime.strptime(match[1], _FORM).replace(tzinfo=timezone.utc) if match else None
    except ValueError:
        return None


def backups_in(folder: Path) -> list[Path]:
    """The oldest first."""
    found = [(at, path) for path in folder.glob("mistudio-*.tar") if (at := made_at(path)) is not None]
    return [path for _, path in sorted(found)]


def newest_copy(folder: Path) -> Path | None:
    """The newest file that has the database in it: a backup, or a copy from before a migration."""
    found = [*backups_in(folder), *folder.glob("mistudio-*.db")]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def failed(folder: Path) -> str | None:
    """Why the last nightly backup failed; None when it did not."""
    try:
        return str(json.loads((folder / FAILED).read_text("utf-8"))["message"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError):
        return "the reason cannot be read"


def is_due(at: time, made: Collection[datetime], now: datetime) -> bool:
    """Whether none was made since it was last ``at`` by the local clock; one that was missed is due as well.

    What says that it was made later than now was made when the clock was wrong, and does not count.
    """
    here = now.astimezone()
    last = datetime.combine(here.date(), at).astimezone()
    if last > here:
        last = datetime.combine(here.date() - timedelta(days=1), at).astimezone()
    return not any(last <= one <= now for one in made)


def too_many(folder: Path, kept: int, now: datetime) -> list[Path]:
    """Those beside the newest ``kept``. Those of a clock that was wrong, later than now, are the first to go."""
    found = sorted(backups_in(folder), key=lambda path: _age(path, now))
    return found[kept:]


def _age(path: Path, now: datetime) -> tuple[bool, timedelta]:
    at = made_at(path) or now
    return at > now, abs(now - at)
