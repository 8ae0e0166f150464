"""Of the client: SAEs that are kept, renamed, thrown away and brought back; and the disk that all takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mistudio.pages import given
from mistudio.wire import Wire

Artifact = dict[str, Any]
_DATABASE_S = 1800.0  # until the studio has copied its database, on a slow disk


class Keeping:
    """``Client`` has these methods. ``sae`` is a name or an id, ``ref`` the id of one in the trash or its name."""

    _ask: Callable[..., dict[str, Any]]
    _named: Callable[..., dict[str, Any]]
    _wire: Wire

    def edit_sae(
        self, sae: str | int, add_tags: Iterable[str] = (), remove_tags: Iterable[str] = (), note: str | None = None
    ) -> Artifact:
        """Give it tags, take tags away, write a note ("" takes it away); what is None stays."""
        changes = {"add_tags": list(add_tags), "remove_tags": list(remove_tags), **given(note=note)}
        return self._named("edit_sae", "sae", sae, body=changes)

    def rename_sae(self, sae: str | int, name: str) -> Artifact:
        """Features, labels, marks, ranges and exports go with it; profiles and runs of steering name it so."""
        return self._named("rename_sae", "sae", sae, body={"name": name})

    def dependents(self, sae: str | int) -> dict[str, Any]:
        """What depends on it, and what goes with it when it is removed: ``{"profiles", "steerings", "labels", …}``."""
        return self._named("dependents", "sae", sae)

    def trash(self) -> list[dict[str, Any]]:
        """``[{"id", "name", "removed_at", "deleted_at", "job", "labels"}]``, the newest first."""
        found: list[dict[str, Any]] = self._ask("trash")["trash"]
        return found

    def restore(self, ref: str, name: str | None = None) -> dict[str, Any]:
        """``{"sae", "labels": whether it has those that it had}``; ``name``: what it is to be called."""
        return self._ask("restore", body=given(name=name), ref=ref)

    def delete_trashed(self, ref: str) -> int:
        """For good. How many went: 1."""
        return int(self._ask("delete_trashed", ref=ref)["deleted"])

    def empty_trash(self) -> int:
        """For good. How many went."""
        return int(self._ask("empty_trash")["deleted"])

    def disk(self) -> dict[str, Any]:
        """``{"saes": [of each its bytes by part], "places": {folder: bytes}, "bytes", "free_bytes", "clean"}``.

        ``clean``: what can be deleted, ``[{"what", "things", "bytes", "lost"}]``.
        """
        return self._ask("disk")

    def clean(self, what: Iterable[str] = (), dry_run: bool = True) -> dict[str, Any]:
        """``{"dry_run", "groups", "bytes"}``: what of these groups was deleted, or would be; none named: of all."""
        return self._ask("clean", body={"what": list(what), "dry_run": dry_run})

    def backup(self, saes: bool = False) -> dict[str, Any]:
        """What a backup would hold: ``{"name", "files", "bytes", "left_out": [{"what", "bytes"}], "nightly"}``.

        ``saes``: with SAEs' weights and what extractions have found.
        """
        return self._ask("backup", {"saes": str(saes).lower()})

    def make_backup(self, saes: bool = False) -> AbstractContextManager[Iterator[bytes]]:
        """A backup as it is made, a tar file; ``mistudio.backing_up.fetch`` writes and checks it."""
        return self._wire.stream("make_backup", body={"saes": saes}, silence_s=_DATABASE_S)
