"""The folder that a job is writing: it appears whole under its final name, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mistudiod.paths import PARTIAL, publish, require_space


@contextmanager
def new_folder(final: Path, needed_bytes: int) -> Iterator[Path]:
    """A partial folder to write into; published when the block ends, removed when it raises. Raises DiskFull."""
    final.parent.mkdir(parents=True, exist_ok=True)
    require_space(final.parent, needed_bytes)
    partial = final.parent / f"{PARTIAL}{final.name}-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        publish(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
