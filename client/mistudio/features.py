"""The part of the client that is about features: what an extraction has found, and what a person marks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mistudio.errors import ApiError
from mistudio.pages import every, given
from mistudio.wire import Wire

Feature = dict[str, Any]
_PAGE = 1000


class Features:
    """``Client`` has these methods. ``sae`` is a name or an id; all is of its newest extraction."""

    _wire: Wire
    _named: Callable[..., dict[str, Any]]
    submit: Callable[..., dict[str, Any]]

    def extract(self, sae: str, **fields: Any) -> dict[str, Any]:
        """The queued job that finds where every feature fires. ``fields`` as of mistudiod.specs.Extract."""
        return self.submit({"kind": "extract", "sae": sae, **fields})

    def features(
        self,
        sae: str | int,
        sort: str | None = None,
        filter: str | None = None,
        q: str | None = None,
        limit: int = _PAGE,
        cursor: str | None = None,
        example: bool = False,
    ) -> dict[str, Any]:
        """``{"sae", "extraction", "total", "features": [{"index", "density", "max", "label", …}], "next"}``.

        ``sort``: index, density, max, typical, token, label or score, from the largest with ``-`` before it.
        ``filter``: terms that must all hold: dead, alive, labelled, unlabelled, failed, starred, ``density<0.01``,
        ``max>3``, ``score>0.7``, ``provider:NAME``, ``list:NAME``, ``token:TEXT``, ``index:5,12``. ``q`` is looked
        for in labels and explanations. With ``example`` each has its strongest one.
        """
        query = given(sort=sort, filter=filter, q=q, limit=limit, cursor=cursor, example="true" if example else None)
        return self._named("features", "sae", sae, query)

    def every_feature(
        self,
        sae: str | int,
        sort: str | None = None,
        filter: str | None = None,
        q: str | None = None,
        example: bool = False,
    ) -> Iterator[Feature]:
        """As ``features``, page after page."""
        return every("features", lambda cursor: self.features(sae, sort, filter, q, _PAGE, cursor, example))

    def feature(self, sae: str | int, index: int) -> Feature:
        """All that is known of one: examples, histogram, logits, neighbours, tokens, label, score and marks."""
        return self._named("feature", "sae", sae, index=index)

    def occurrences(
        self,
        sae: str | int,
        index: int,
        above: float | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Where in the text it fires, ``above`` or more strongly, in the order of the text.

        ``{"total", "occurrences": [{"window", "position", "texts", "peak", "value"}], "next"}``.
        """
        query = given(above=above, limit=limit, cursor=cursor)
        return self._named("occurrences", "sae", sae, query, index=index)

    def feature_window(self, sae: str | int, index: int, row: int) -> dict[str, Any]:
        """``{"row", "window", "texts", "activations", …}``: the whole of a window that was read, by its ``row``."""
        return self._named("feature_window", "sae", sae, index=index, row=row)

    def compare(self, sae: str | int, a: int, b: int) -> dict[str, Any]:
        """``{"a", "b", "cosine", "both", "jaccard", "shared"}``: two features, and how alike they are."""
        return self._named("compare", "sae", sae, {"a": a, "b": b})

    def export_features(self, sae: str | int) -> Iterator[Feature]:
        """Every feature as of ``feature``, as they come."""
        for line in self.export_lines("export_features", sae):
            yield json.loads(line)

    def export_lines(self, route: str, sae: str | int) -> Iterator[bytes]:
        """The lines of NDJSON of an export, each with its end. Raises Unreachable when it is cut off."""
        rest = b""
        try:
            with self._wire.stream(route, ref=sae) as blocks:
                for block in blocks:
                    *lines, rest = (rest + block).split(b"\n")
                    yield from (line + b"\n" for line in lines if line)
        except ApiError as error:
            if error.status == 404:
                error.missing = ("sae", str(sae))
            raise
        if rest:
            yield rest + b"\n"

    def inspect(self, sae: str | int, text: str, **fields: Any) -> dict[str, Any]:
        """The queued job that says which features fire on which token. ``fields`` as of mistudiod.specs.Inspect."""
        return self._named("inspect", "sae", sae, body={"text": text, **fields})

    def mark(
        self,
        sae: str | int,
        index: int,
        starred: bool | None = None,
        note: str | None = None,
        lists: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Star a feature, write a note of it, put it on these ``lists`` and no others; what is None stays."""
        changes = given(starred=starred, note=note, lists=None if lists is None else list(lists))
        return self._named("mark", "sae", sae, body=changes, index=index)

    def lists(self, sae: str | int) -> list[dict[str, Any]]:
        """``[{"name", "features"}]``: the lists on which a person has put features, and how many each has."""
        found: list[dict[str, Any]] = self._named("lists", "sae", sae)["lists"]
        return found
