"""The folder that a job is writing: it appears whole under its final name, or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mistudiod.paths import PARTIAL, publish, require_space

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def new_folder(final: Path, needed_bytes: int, replaces: bool = False) -> Iterator[Path]:
    """A partial folder to write into; published when the block ends, removed when it raises. Raises DiskFull.

    ``replaces``: there may be a folder of that name, which stays until the new one takes its place.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    require_space(final.parent, needed_bytes)
    partial = final.parent / f"{PARTIAL}{final.name}-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        if replaces and final.exists():
            _replace(partial, final)
        else:
            publish(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _replace(partial: Path, final: Path) -> None:
    """Publish under a name that is taken: the two folders change places, and the old one is deleted."""
    old = partial.with_name(f"{PARTIAL}old-{partial.name.removeprefix(PARTIAL)}")
    publish(partial, old)  # to the disk, before anything is given up for it
    if _exchange(old, final):
        shutil.rmtree(old)
        return
    final.rename(partial)  # a file system that cannot exchange: for a moment there is neither
    publish(old, final)
    shutil.rmtree(partial)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return call is not None and call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
