"""A dataset's card can name files anywhere, and the library datasets would ask whoever has them: here the Hub alone."""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem, register_implementation
from fsspec.registry import known_implementations

from mistudiod.worker.source_files import fault

_LEFT = ("hf", "file", "local")  # of this machine's only the library's own notes are read; see ``require_own``


class _Elsewhere(AbstractFileSystem):
    def __init__(self, *_: Any, **__: Any) -> None:
        raise fault("its card names files that lie elsewhere, and miStudio reads none but those of the dataset itself")


def ask_nobody_else() -> None:
    """From now on this process knows of no other file system."""
    for protocol in known_implementations:
        if protocol not in _LEFT:
            register_implementation(protocol, _Elsewhere, clobber=True)


def require_own(id: str, sha: str, urls: list[str]) -> None:
    """Raises Refused unless all of them are files of the dataset, at that commit."""
    for url in urls:
        if not url.startswith(f"hf://datasets/{id}@{sha}/"):
            raise fault(f"the card of {id} names {url[:200]!r}, and miStudio reads none but the dataset's own files")
