"""Exact training state on disk: ``<folder>/<number>/{state.safetensors, manifest.json}``, each one whole or absent.

A checkpoint is written under a name that nobody reads, flushed to the disk and renamed; the manifest holds the
sha256 of the tensors, so one that was damaged later is noticed and the one before it is taken. Numbers grow as the
training does. Of each group of autoencoders (``about["saes"]``) the newest are kept, and the best.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

PARTIAL = ".partial-"  # the data folder is swept of this prefix when the daemon starts
KEPT = 2  # checkpoints when nobody says how many; the second is there in case the newest is damaged
STATE, MANIFEST = "state.safetensors", "manifest.json"

log = logging.getLogger(__name__)
Publish = Callable[[Path, Path], None]  # (partial, final): flush a folder to the disk and rename it


About = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by name (on the CPU), and the JSON object that went with them."""

    number: int
    tensors: dict[str, Tensor]
    about: About


def save(
    folder: Path, number: int, tensors: dict[str, Tensor], about: About, publish: Publish, keep: int = KEPT
) -> Path:
    """Write checkpoint ``number`` under ``folder``, then drop those of its group that are neither among the newest
    ``keep`` nor the best (the lowest ``about["held_out_fvu"]``, where that is known). Returns its folder.

    ``about`` is any JSON object. Raises OSError or SafetensorError when the disk is full; what was there stays then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(PARTIAL + "*"):  # of a process that was killed: a folder has one writer at a time
        shutil.rmtree(left_over)
    partial, final = folder / f"{PARTIAL}{number}-{os.getpid()}", folder / str(number)
    partial.mkdir()
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / STATE)
        size_bytes = (partial / STATE).stat().st_size
        manifest = {"number": number, "bytes": size_bytes, "sha256": _sha256(partial / STATE), "about": about}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if final.exists():  # a damaged one: training went on from an earlier checkpoint and came here again
            shutil.rmtree(final)
        publish(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _prune(folder, number, about.get("saes"), keep)
    return final


def latest(
    folder: Path,
    wanted: Callable[[About], bool] = lambda about: True,
    which: Callable[[str], bool] = lambda name: True,
) -> Checkpoint | None:
    """The newest whole checkpoint under ``folder`` that is ``wanted``, None when there is none.

    Damaged ones are logged and passed by. ``which``: the names of the tensors to read, all when not given.
    """
    for number in sorted(_numbers(folder), reverse=True):
        try:
            manifest = json.loads((folder / str(number) / MANIFEST).read_text())
            if wanted(manifest["about"]):
                tensors = _tensors(folder / str(number), manifest["sha256"], which)
                return Checkpoint(number, tensors, manifest["about"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %d cannot be used (%s): looking for the one before it", number, error)
    return None


def exists(folder: Path, wanted: Callable[[About], bool]) -> bool:
    """Whether there is one under ``folder`` that is ``wanted``, perhaps damaged."""
    return any(map(wanted, abouts(folder)))


def abouts(folder: Path) -> list[About]:
    """What the manifests under ``folder`` say, the oldest first; one that is damaged is left out."""
    found = (_about(folder / str(number)) for number in sorted(_numbers(folder)))
    return [about for about in found if about is not None]


def keep_only(folder: Path, numbers: Container[int]) -> None:
    """Remove every other checkpoint under ``folder``."""
    for number in _numbers(folder):
        if number not in numbers:
            shutil.rmtree(folder / str(number))


def _tensors(folder: Path, sha256: str, which: Callable[[str], bool]) -> dict[str, Tensor]:
    if _sha256(folder / STATE) != sha256:
        raise ValueError(f"{STATE} does not have the sha256 that {MANIFEST} says")
    with safe_open(folder / STATE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if which(name)}  # noqa: SIM118 - it is no dict


def _prune(folder: Path, newest: int, group: object, keep: int) -> None:
    """Later ones than ``newest`` were damaged, or it had not come."""
    abouts = {number: _about(folder / str(number)) for number in _numbers(folder)}
    mine = {number: about for number, about in abouts.items() if about is None or about.get("saes") == group}
    before = sorted((number for number in mine if number <= newest), reverse=True)
    fvus = {number: fvu for number in before if (fvu := (mine[number] or {}).get("held_out_fvu")) is not None}
    kept = {*before[:keep], *([min(fvus, key=lambda number: fvus[number])] if fvus else [])}
    for number in mine.keys() - kept:
        shutil.rmtree(folder / str(number))


def _about(folder: Path) -> About | None:
    try:
        about = json.loads((folder / MANIFEST).read_text())["about"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return about if isinstance(about, dict) else None


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
