"""Where everything lives under the data folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PARTIAL = ".partial-"  # names of folders that are being written; never listed, swept at start
FLOOR_BYTES = 16 << 20  # free space left to the database and the logs
_UPLOAD = re.compile(r"upload:[0-9a-f]{32}")
_NAME_BYTES, _PATH_BYTES = 255, 1024  # the longest name that Linux takes; and of what is joined, far below PATH_MAX


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
    def restoring(self) -> Path:
        """What of a backup is not at its place yet; there only while one is restored, or when that was cut short."""
        return self.data / f"{PARTIAL}restoring"

    @property
    def incomplete(self) -> Path:
        """Of artifacts that were in a backup without their large files, what there was; nothing reads it."""
        return self.data / "incomplete"

    @property
    def lock(self) -> Path:
        return self.data / "mistudiod.lock"

    @property
    def settings(self) -> Path:
        """Those that a person changes while the studio runs."""
        return self.data / "settings.json"

    @property
    def tls(self) -> Path:
        """The certificate that the studio has made for itself, and its key."""
        return self.data / "tls"

    @property
    def log(self) -> Path:
        """The daemon's own."""
        return self.data / "mistudiod.log"

    def folder(self, noun: str) -> Path:
        """Where artifacts of a noun lie."""
        return self.data / {"tokenization": "tokens", "features": "features"}.get(noun, noun + "s")

    def artifact(self, noun: str, name: str) -> Path:
        return self.folder(noun) / name

    @property
    def socket(self) -> Path:
        return self.data / "mistudiod.sock"

    @property
    def uploads(self) -> Path:
        return self.data / "uploads"

    @property
    def incoming(self) -> Path:
        """Where a person puts files for those who may not name any other path on this machine."""
        return self.data / "incoming"

    @property
    def exports(self) -> Path:
        """SAEs as they were written for others: a folder ``<sae>-<format>`` each."""
        return self.data / "exports"

    @property
    def trash(self) -> Path:
        """SAEs that were removed: a folder for each, until it is deleted for good."""
        return self.data / "trash"

    @property
    def moving(self) -> Path:
        """Which SAE is being renamed, removed or restored; there only meanwhile."""
        return self.data / "moving.json"

    @property
    def activations(self) -> Path:
        """Where activations are kept for later trainings: a folder for each ``kept_activations.Kept``."""
        return self.data / "activations"

    def maxima(self, sae_sha256: str) -> Path:
        """Where the largest activations of an SAE's features are kept that no extraction has found."""
        return self.data / "steering" / f"{sae_sha256}.json"

    def upload(self, source: str) -> Path | None:
        """What the source "upload:<id>" holds: its file, or the folder of its files. None when there is no such."""
        if not _UPLOAD.fullmatch(source):
            return None
        files = self.uploads / source.removeprefix("upload:") / "files"
        if not files.is_dir():
            return None
        found = list(files.iterdir())
        return found[0] if len(found) == 1 and found[0].is_file() else files

    def run(self, job: int) -> Path:
        return self.data / "runs" / str(job)

    @property
    def session(self) -> Path:
        """The run folder of the resident worker: there is one at a time."""
        return self.data / "session"

    def sweep(self) -> list[Path]:
        """Remove what was half written when a worker died; returns what was removed."""
        left = [
            p
            for pattern in (f"*/{PARTIAL}*", f"features/*/{PARTIAL}*", f"runs/*/checkpoints/{PARTIAL}*")
            for p in self.data.glob(pattern)
        ]
        for path in left:
            delete_tree(path)
        return left

    def sweep_worker(self, job: int, pid: int) -> list[Path]:
        """Remove what one dead worker left half written: in its run folder, and where its artifact was to go."""
        left = [path for path in _inside(self.run(job) / "checkpoints") if path.name.startswith(PARTIAL)]
        places = [place for top in (self.data, self.data / "features") for place in _inside(top)]
        half = [path for place in places for path in _inside(place) if path.name.startswith(PARTIAL)]
        left += [path for path in half if path.name.endswith(f"-{pid}")]
        for path in left:
            delete_tree(path)
        return left


def _inside(folder: Path) -> list[Path]:
    """What lies there; nothing where it is no folder, or is none any more: things are renamed and removed meanwhile."""
    try:
        with os.scandir(folder) as found:
            return [Path(one.path) for one in found]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def join(root: Path, *parts: str) -> Path:
    """``root`` and names that came from outside; a part may hold several names, as ``"a/b.txt"``.

    Raises ValueError, in one sentence, for anything that could lie elsewhere than under ``root``.
    """
    text = "/".join(parts)
    names = [name for part in parts for name in part.split("/")]
    for name in names:
        if name in ("", ".", ".."):
            raise ValueError(f"{_quoted(text)} must be a plain path: without '..', '.' and '//', and no '/' in front")
        if any(character in name for character in "\0\\"):
            raise ValueError(f"{_quoted(text)} holds a backslash or a NUL, which no name here may have")
        if _size(name) > _NAME_BYTES:
            raise ValueError(f"{_quoted(text)} has a name that is longer than {_NAME_BYTES} bytes: shorten it")
    if not names or _size(text) > _PATH_BYTES:
        raise ValueError(f"{_quoted(text)} must be a path of 1 to {_PATH_BYTES} bytes: shorten it")
    path = root.joinpath(*names)
    if not lies_under(path, root):
        raise ValueError(f"{_quoted(text)} goes through a link that leads elsewhere: remove the link")
    return path


def lies_under(path: Path, root: Path) -> bool:
    """Whether ``path`` is below ``root`` or ``root`` itself, once the links of both are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:99] + "…")


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{_quoted(text)} is not valid Unicode: rename the file") from None


def delete_tree(path: Path) -> None:
    """Delete as much of it as can be, a folder or a file; of a link only the link."""
    if path.is_symlink() or path.is_file():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def set_aside(path: Path) -> Path | None:
    """Rename a folder or a file to a partial one, for good even if the power fails now; None when it is not there.

    From then on it is gone for everybody, and the next sweep deletes it if nobody has until then. Raises OSError.
    """
    trash = path.with_name(f"{PARTIAL}deleted-{path.name}-{time.time_ns()}")
    try:
        path.rename(trash)
    except FileNotFoundError:
        return None
    sync(path.parent)
    return trash


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
            f"under {folder}, {free / 1e6:,.1f} MB are free; free some space and try again"
        )


def is_disk_full(error: Exception) -> bool:
    """Whether an error says that the disk, or what a person may have of it, is used up."""
    if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return True
    return "No space left on device" in str(error)  # safetensors and arrow wrap the errno away


def publish(partial: Path, final: Path) -> None:
    """Make a finished folder appear under its name: fsync all of it, then one rename."""
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            sync(path)
    sync(partial)
    partial.rename(final)
    sync(final.parent)


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text file in place of what is there, whole or not at all, for good even if the power fails then.

    Raises OSError.
    """
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def put_beside(folder: Path, name: str, text: str) -> None:
    """As ``write_whole``, into an artifact's folder, which stays as old as it was; what a crash leaves is swept."""
    was = folder.stat()
    partial = folder.with_name(f"{PARTIAL}{name}-of-{folder.name}")
    partial.mkdir(exist_ok=True)
    try:
        write_whole(partial / name, [text])
        (partial / name).replace(folder / name)
        os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(folder)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before anything else is done."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
