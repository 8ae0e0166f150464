"""What is found out about an SAE later, kept as a file beside it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod.engine.tokens import TOKENS
from mistudiod.paths import PARTIAL
from mistudiod.worker.held_out_text import HeldOutText
from mistudiod.worker.read_recipe import WEIGHTS
from mistudiod.worker.recipe import origins, sha256_of
from mistudiod.worker.trained import Trained


def keep(folder: Path, name: str, found: Mapping[str, Any]) -> None:
    """Write it as ``name`` into an SAE's folder, whole or not at all; the folder stays as old as it was."""
    was = folder.stat()
    partial = folder.parent / f"{PARTIAL}{folder.name}-{os.getpid()}"
    partial.mkdir()
    try:
        with (partial / name).open("w", encoding="utf-8") as file:
            file.write(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        (partial / name).replace(folder / name)
        os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def hashes_of(trained: Trained) -> dict[str, str]:
    """Of the SAE's files, as they are now: taken when it is loaded, for they may be others when the work is done."""
    return {"cfg.json": sha256_of(trained.folder / "cfg.json"), WEIGHTS: trained.sha256}


def made_of(trained: Trained, text: HeldOutText, began: float, sha256: Mapping[str, str]) -> dict[str, Any]:
    """What it was found out with and from, JSON-ready.

    ``began``: when, by ``time.monotonic``; ``sha256``: as ``hashes_of`` gave it then.
    """
    found = origins(text.manifest, text.folder, trained.model)
    return {
        "sha256": {
            "sae": dict(sha256),
            "model": found["model"]["weights"],
            "tokens": found["data"][TOKENS],
        },
        "device": trained.device.type,
        "precision": trained.precision,
        "versions": found["versions"],
        "code": found["code"],
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "seconds": time.monotonic() - began,
    }
