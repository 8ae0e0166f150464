"""Where the files of the systemd service lie: with an installed miStudio beside its modules, else above them."""

from __future__ import annotations

from pathlib import Path

_PACKED = Path(__file__).parent / "systemd"
FOLDER = _PACKED if _PACKED.is_dir() else Path(__file__).parent.parent / "systemd"
