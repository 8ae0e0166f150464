"""What is looked at, and what is found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mistudiod.settings import Settings


@dataclass(frozen=True)
class Subject:
    """``config`` is the settings file that was named; ``root`` is where /proc and /sys lie."""

    settings: Settings
    config: Path | None = None
    root: Path = Path("/")


@dataclass(frozen=True)
class Finding:
    """``remedy`` says how to mend it; None when there is nothing to do."""

    name: str
    level: Literal["ok", "warning", "problem"]
    message: str
    remedy: str | None = None
