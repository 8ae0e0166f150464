"""How much of the disk what takes: whole folders, and each SAE. Links are not followed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mistudiod.moving import FORMATS, folders
from mistudiod.paths import Paths

BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own
PLACES = ("models", "datasets", "tokens", "saes", "features", "exports", "activations", "steering", "runs", "backups",
          "trash", "uploads", "incoming")  # fmt: skip
Seen = set[tuple[int, int]]


def bytes_of(path: Path, seen: Seen | None = None) -> int:
    """What a file, or a folder with all in it, takes of the disk; of a sparse file what is there, of a link nothing.

    A file that has several names counts once among those that share ``seen``. What goes meanwhile is not there.
    """
    seen = set() if seen is None else seen
    return sum(status.st_blocks * BLOCK_BYTES for status in _files(path) if _is_new(status, seen))


def survey(paths: Paths, saes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """``{"saes": [of each its parts], "places": {folder: bytes}, "bytes", "free_bytes"}``; ``saes`` of the index.

    Reads the names of all files that there are.
    """
    seen: Seen = set()
    places = {name: bytes_of(paths.data / name, seen) for name in PLACES}
    places["database"] = sum(bytes_of(path, seen) for path in paths.data.glob("mistudio.db*"))
    checkpoints = sum(bytes_of(path) for path in (paths.data / "runs").glob("*/checkpoints"))
    places |= {"runs": places["runs"] - checkpoints, "checkpoints": checkpoints}
    return {
        "saes": [of_sae(paths, sae) for sae in saes],
        "places": places,
        "bytes": sum(places.values()),
        "free_bytes": _free(paths.data),
    }


def of_sae(paths: Paths, sae: Mapping[str, Any]) -> dict[str, Any]:
    """What each part of an SAE takes. Its checkpoints are those of the job that made it, and of its other SAEs."""
    at = folders(paths, sae["name"])
    job, sha256 = sae["job"], sae.get("sae_sha256")
    parts = {
        "weights": bytes_of(at["sae"]),
        "features": bytes_of(at["features"]),
        "exports": sum(bytes_of(at[format]) for format in FORMATS),
        "checkpoints": bytes_of(paths.run(job) / "checkpoints") if job else 0,
        "maxima": bytes_of(paths.maxima(sha256)) if isinstance(sha256, str) and sha256.isalnum() else 0,
    }
    return {"name": sae["name"], "job": job, **parts, "bytes": sum(parts.values())}


def _files(path: Path) -> Iterator[os.stat_result]:
    """Of all files of a tree."""
    try:
        if path.is_symlink():
            return
        if not path.is_dir():
            yield path.lstat()
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                elif not entry.is_symlink():
                    yield entry.stat(follow_symlinks=False)
    except OSError:  # it has gone meanwhile, or is not ours to read
        return


def _is_new(status: os.stat_result, seen: Seen) -> bool:
    if status.st_nlink < 2:
        return True
    key = (status.st_dev, status.st_ino)
    new = key not in seen
    seen.add(key)
    return new


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
