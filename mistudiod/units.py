"""Where the files of the systemd service lie: beside the modules when miStudio is installed, above them in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKED = Path(__file__).parent / "systemd"
FOLDER = _PACKED if _PACKED.is_dir() else Path(__file__).parent.parent / "systemd"
