"""Exact training state on disk: ``<folder>/<step>/{state.safetensors, manifest.json}``, each one whole or absent.

A checkpoint is written under a name that nobody reads, flushed to the disk and renamed; the manifest holds the
sha256 of the tensors, so one that was damaged later is noticed and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

PARTIAL = ".partial-"  # the data folder is swept of this prefix when the daemon starts
KEPT = 2  # checkpoints; the second is there in case the newest is damaged
STATE, MANIFEST = "state.safetensors", "manifest.json"

log = logging.getLogger(__name__)
Publish = Callable[[Path, Path], None]  # (partial, final): flush a folder to the disk and rename it


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by name (on the CPU), and the JSON object that went with them."""

    step: int
    tensors: dict[str, Tensor]
    about: dict[str, object]


def save(folder: Path, step: int, tensors: dict[str, Tensor], about: dict[str, object], publish: Publish) -> Path:
    """Write checkpoint ``step`` under ``folder``, then drop all but the newest ``KEPT``. Returns its folder.

    ``about`` is any JSON object. Raises OSError when the disk is full; what was there before stays then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(PARTIAL + "*"):  # of a process that was killed: a folder has one writer at a time
        shutil.rmtree(left_over)
    partial, final = folder / f"{PARTIAL}{step}-{os.getpid()}", folder / str(step)
    partial.mkdir()
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / STATE)
        manifest = {"step": step, "sha256": _sha256(partial / STATE), "about": about}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if final.exists():  # a damaged one: training went on from an earlier checkpoint and came here again
            shutil.rmtree(final)
        publish(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _prune(folder, step)
    return final


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint under ``folder``, None when there is none; damaged ones are logged and passed by."""
    for step in sorted(_steps(folder), reverse=True):
        try:
            return _read(folder / str(step))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %d cannot be used (%s): looking for the one before it", step, error)
    return None


def _read(folder: Path) -> Checkpoint:
    manifest = json.loads((folder / MANIFEST).read_text())
    if _sha256(folder / STATE) != manifest["sha256"]:
        raise ValueError(f"{STATE} does not have the sha256 that {MANIFEST} says")
    return Checkpoint(manifest["step"], load_file(folder / STATE), manifest["about"])


def _prune(folder: Path, newest: int) -> None:
    """Keep ``newest`` and the checkpoints before it, ``KEPT`` in all; later ones were damaged, or it had not come."""
    kept = sorted((step for step in _steps(folder) if step <= newest), reverse=True)[:KEPT]
    for step in _steps(folder):
        if step not in kept:
            shutil.rmtree(folder / str(step))


def _steps(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
