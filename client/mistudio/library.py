"""The part of the client that is about SAEs that others have published."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from mistudio import names

if TYPE_CHECKING:
    from mistudio.api import Client


class Library:
    """``Client`` has these methods."""

    _ask: Callable[..., dict[str, Any]]
    submit: Callable[..., dict[str, Any]]

    def add_sae(self, source: str, name: str | None = None, remote: bool = False, **fields: Any) -> dict[str, Any]:
        """The queued job. ``source``: owner/name on the Hub, a file or folder as of ``add_dataset``; any of them with
        ``:path``, which names one of its SAEs. ``fields`` as of mistudiod.specs.AddSae.
        """
        from mistudio.sources import sae_parts, settled_sae

        name = name or names.of_published(*sae_parts(source))
        source = source if remote else settled_sae(cast("Client", self), source, name)
        return self.submit({"kind": "add_sae", "source": source, "name": name, **fields})

    def preview_model(self, source: str, remote: bool = False, **fields: Any) -> dict[str, Any]:
        """What ``add_model`` would find, of which no weights are fetched: ``{"parameters", "missing_bytes", …}``.

        Raises ValueError for a folder that is here when the studio cannot read it.
        """
        from mistudio.sources import looked_at

        source = source if remote else looked_at(cast("Client", self), source, "model")
        return self._ask("preview_model", body={"source": source, **fields})

    def preview_filters(self, dataset: str, model: str, **fields: Any) -> dict[str, Any]:
        """What the filters of a tokenization keep of some documents: ``{"documents", "kept", "dropped"}``."""
        return self._ask("preview_filters", body={"dataset": dataset, "model": model, **fields})

    def preview_sae(self, source: str, remote: bool = False, **fields: Any) -> dict[str, Any]:
        """The SAEs that ``add_sae`` would find at a source, nothing of which is fetched: ``{"count", "saes", …}``.

        Raises ValueError for a file that is here when the studio cannot read it.
        """
        from mistudio.sources import looked_at_sae

        source = source if remote else looked_at_sae(cast("Client", self), source)
        return self._ask("preview_sae", body={"source": source, **fields})
