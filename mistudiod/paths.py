"""Where everything lives under the data folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

PARTIAL = ".partial-"  # names of folders that are being written; never listed, swept at start
FLOOR_BYTES = 16 << 20  # free space left to the database and the logs


class DiskFull(OSError):
    """There is not enough free space for what is about to be written."""


@dataclass(frozen=True)
class Paths:
    data: Path

    @property
    def database(self) -> Path:
        return self.data / "mistudio.db"

    @property
    def backups(self) -> Path:
        return self.data / "backups"

    @property
    def lock(self) -> Path:
        return self.data / "mistudiod.lock"

    def folder(self, noun: str) -> Path:
        """Where artifacts of a noun lie."""
        return self.data / {"tokenization": "tokens", "features": "features"}.get(noun, noun + "s")

    def artifact(self, noun: str, name: str) -> Path:
        return self.folder(noun) / name

    def run(self, job: int) -> Path:
        return self.data / "runs" / str(job)

    def sweep(self) -> list[Path]:
        """Remove what was half written when a worker died; returns what was removed."""
        left = [
            p
            for pattern in (f"*/{PARTIAL}*", f"features/*/{PARTIAL}*", f"runs/*/checkpoints/{PARTIAL}*")
            for p in self.data.glob(pattern)
        ]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return left

    def sweep_worker(self, job: int, pid: int) -> list[Path]:
        """Remove what one dead worker left half written: in its run folder, and where its artifact was to go."""
        left = list(self.run(job).glob(f"checkpoints/{PARTIAL}*"))
        left += [p for pattern in ("*", "features/*") for p in self.data.glob(f"{pattern}/{PARTIAL}*-{pid}")]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return left


def newest_checkpoint(run: Path) -> int | None:
    """The step of the newest checkpoint of a run."""
    steps = [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdigit()]
    return max(steps, default=None)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise DiskFull, naming the numbers, unless ``needed_bytes`` and the floor are free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + FLOOR_BYTES:
        raise DiskFull(
            f"the disk is full: {needed_bytes / 1e6:,.1f} MB and a reserve of {FLOOR_BYTES / 1e6:,.0f} MB are needed "
            f"under {folder}, {free / 1e6:,.1f} MB are free; free some space and retry the job"
        )


def publish(partial: Path, final: Path) -> None:
    """Make a finished folder appear under its name: fsync all of it, then one rename."""
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            _fsync(path)
    _fsync(partial)
    partial.rename(final)
    _fsync(final.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
