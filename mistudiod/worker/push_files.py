"""What of an SAE is published: SAELens' folder, what its features are called, and its card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mistudiod.paths import PARTIAL, require_space
from mistudiod.worker.export import write_card_too
from mistudiod.worker.link import Link
from mistudiod.worker.read_recipe import WEIGHTS
from mistudiod.worker.shared import open_shared

_MORE_BYTES = 64 << 20  # than the weights take: labels and card


@contextmanager
def published(sae: str, link: Link) -> Iterator[Path]:
    """A folder with what is published, which is gone afterwards. Raises Refused, DiskFull."""
    folder = link.paths.exports / f"{PARTIAL}push-{sae}-{os.getpid()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(sae, folder, link)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(sae: str, folder: Path, link: Link) -> None:
    shared = open_shared(sae, link.given()["labels"], link)
    require_space(folder.parent, (shared.folder / WEIGHTS).stat().st_size + _MORE_BYTES)
    link.progress("write", 0, 1)
    write_card_too(shared, "saelens", folder)
    link.progress("write", 1, 1)
