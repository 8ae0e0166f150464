"""Which checkpoints lie in a run folder, by their manifests; what is in them only the engine reads."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod.index import read_json

MANIFEST = "manifest.json"


def checkpoints(run: Path) -> list[dict[str, Any]]:
    """``{"step", "bytes", "at", "fvu", "best"}`` of each, the newest first. One that is damaged is passed by."""
    found = [_about(folder) for folder in run.glob("checkpoints/*") if folder.name.isdecimal()]
    return sorted((one for one in found if one is not None), key=lambda one: int(one["step"]), reverse=True)


def _about(folder: Path) -> dict[str, Any] | None:
    """None when it is none, or is just being deleted."""
    try:
        manifest = read_json(folder / MANIFEST)
        size = sum(path.stat().st_size for path in folder.iterdir())
        at = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, timezone.utc)
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict):
        return None
    about = manifest.get("about")
    said = {**(about if isinstance(about, dict) else {}), **manifest}
    fvu = said.get("fvu")
    known = isinstance(fvu, int | float) and not isinstance(fvu, bool) and math.isfinite(fvu)
    return {
        "step": int(folder.name),
        "bytes": size,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "fvu": fvu if known else None,
        "best": said.get("best") is True,
    }
