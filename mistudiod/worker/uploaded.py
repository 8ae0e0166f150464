"""Where a job's source lies, when it is an upload."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mistudiod.paths import require_space
from mistudiod.worker.link import Link, Refused


def is_upload(source: str) -> bool:
    return source.startswith("upload:")


def place(source: str, link: Link) -> str:
    """The path of what was uploaded; any other source as it is. Raises Refused."""
    if not is_upload(source):
        return source
    path = link.paths.upload(source)
    if path is None:
        raise Refused(f"the {source} is not there any more: send it again and submit a new job", field="source")
    return str(path)


def keep(folder: Path, kept: Path) -> None:
    """Give an uploaded folder's files a second name under ``kept``, as hard links, without copying.

    Not a rename: when the job is cut off, the upload must still be there for its next attempt.
    """
    shutil.copytree(folder, kept, copy_function=_second_name)


def _second_name(file: str, name: str) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without hard links
        require_space(Path(name).parent, Path(file).stat().st_size)
        shutil.copyfile(file, name)
