"""Which checkpoints lie in a run folder, by their manifests; what is in them only the engine reads."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod.index import read_json

MANIFEST = "manifest.json"


def checkpoints(run: Path) -> list[dict[str, Any]]:
    """``{"step", "bytes", "at", "saes", "fvu", "best"}`` of each, the newest first. One that is damaged is passed by.

    A training in several passes numbers its folders throughout; the steps are those of a pass. The best is the one of
    the lowest FVU among those of the same SAEs.
    """
    numbers = sorted((int(path.name) for path in run.glob("checkpoints/*") if path.name.isdecimal()), reverse=True)
    found = [one for number in numbers if (one := _about(run / "checkpoints" / str(number))) is not None]
    for one in found:
        rivals = [other["fvu"] for other in found if other["saes"] == one["saes"] and other["fvu"] is not None]
        one["best"] = one["fvu"] is not None and one["fvu"] == min(rivals)
    return found


def _about(folder: Path) -> dict[str, Any] | None:
    """None when it is none, or is just being deleted."""
    try:
        about = read_json(folder / MANIFEST)["about"]
        size = sum(path.stat().st_size for path in folder.iterdir())
        at = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, timezone.utc)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not isinstance(about, dict):
        return None
    step, fvu, saes = about.get("step"), about.get("held_out_fvu"), about.get("saes")
    return {
        "step": step if isinstance(step, int) else int(folder.name),
        "bytes": size,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "saes": [str(sae) for sae in saes] if isinstance(saes, list) else None,
        "fvu": fvu if isinstance(fvu, int | float) else None,
    }
