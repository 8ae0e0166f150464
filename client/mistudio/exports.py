"""Of the client: SAEs as they were written for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mistudio.wire import Wire

Job = dict[str, Any]


class Exports:
    _wire: Wire
    _ask: Callable[..., dict[str, Any]]
    submit: Callable[..., Job]

    def export(self, sae: str, format: str = "saelens", labels: bool = True) -> Job:
        """The queued job; the result of one that is done says the ``export``, its path, its files and its notes."""
        return self.submit({"kind": "export", "sae": sae, "format": format, "labels": labels})

    def exports(self) -> list[dict[str, Any]]:
        """``[{"name", "sae", "format", "bytes", "written_at"}]``: the SAEs that are written for others."""
        found: list[dict[str, Any]] = self._ask("exports")["exports"]
        return found

    def remove_export(self, export: str) -> None:
        self._ask("remove_export", export=export)

    def export_files(self, export: str) -> list[dict[str, Any]]:
        """Of an export: ``[{"name", "bytes", "sha256"}]``; ``mistudio.download.fetch_export`` brings them all."""
        found: list[dict[str, Any]] = self._ask("export_files", export=export)["files"]
        return found

    def export_file(self, export: str, file: str, offset: int = 0) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of one of them from ``offset`` on, as they come."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        return self._wire.stream("export_file", headers=headers, export=export, file=file)
