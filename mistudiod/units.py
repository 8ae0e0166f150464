"""Where the files of the systemd service lie: beside the modules of an installed miStudio, above those of a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKED = Path(__file__).parent / "systemd"
FOLDER = _PACKED if _PACKED.is_dir() else Path(__file__).parent.parent / "systemd"
