"""A preview: which SAEs there are in a source, by layer, width and L0, before any of them is brought in."""

from __future__ import annotations

import json
from typing import Any

from mistudiod.engine.formats import Found, Listing
from mistudiod.engine.formats.base import one_line
from mistudiod.events import MAX_LINE_BYTES
from mistudiod.specs import PreviewSae
from mistudiod.worker.link import Link
from mistudiod.worker.sae_source import open_source

_ROOM_BYTES = MAX_LINE_BYTES // 2


def run(spec: PreviewSae, link: Link) -> None:
    """The result is {source, revision, licence, count, saes: [{path, format, layer, width, l0, hook, model, pickle,
    bytes}], left_out}; null where the files do not say it, or only the weights would.

    ``left_out``: how many the answer had no room for.
    """
    source = open_source(spec.source, spec.revision, link)
    found = source.found()
    rows, left = [], _ROOM_BYTES
    for one in found:
        row = _row(one, source.listing)
        left -= len(json.dumps(row)) + 2
        if left < 0:
            break
        rows.append(row)
    about = {"source": source.place, "revision": source.revision, "licence": source.licence, "count": len(found)}
    link.result({**about, "saes": rows, "left_out": len(found) - len(rows)})


def _row(one: Found, listing: Listing) -> dict[str, Any]:
    names = ("path", "format", "layer", "width", "l0", "hook", "model")
    row = {name: _shown(getattr(one, name)) for name in names}
    return row | {"pickle": one.pickle, "bytes": sum(listing.size(name) for name in one.files)}


def _shown(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value
