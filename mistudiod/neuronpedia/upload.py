"""The requests with which anybody may put features on Neuronpedia, as plain dicts; sending them is another's.

First the model, then the set of sources (which makes one source for each layer, ``{layer}-{set}``), then features, 128
at most of a request. It takes no histograms, no neighbours, no dead features; it makes embeddings of labels itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mistudiod.neuronpedia import bars, records
from mistudiod.neuronpedia.bars import Page
from mistudiod.neuronpedia.names import Names
from mistudiod.neuronpedia.records import About, Label, Record, clean, clean_all
from mistudiod.pages import Pages

MODEL, SOURCE_SET, FEATURES = "/api/model/new", "/api/source-set/new", "/api/feature/upload-batch"
KEY = "X-Api-Key"  # the header
AT_ONCE = 128  # features of a request
MOST_INDEX, MOST_LOGITS, MOST_TOKENS, MOST_LABEL = 10_000_000, 20, 1024, 512
MOST_LAYERS, MOST_DESCRIPTION = 127, 128
_MODEL = re.compile(r"[a-z][a-z0-9.-]{0,30}[a-z0-9]")
_SET = re.compile(r"[a-z0-9]|[a-z][a-z0-9-]*[a-z0-9]")


@dataclass(frozen=True)
class Upload:
    """``body``: None when all its features are dead. ``after``: where to go on when it has been taken."""

    body: Record | None
    indices: tuple[int, ...]
    dead: int
    after: int


def check_names(names: Names) -> None:
    """The rules here are narrower than those of an import. Raises ValueError."""
    if not _MODEL.fullmatch(names.model) or "--" in names.model or ".." in names.model:
        raise ValueError(
            f"Neuronpedia takes no model called {names.model!r} from its users: 2 to 32 lower-case letters, digits, "
            "dots and dashes, none of them twice in a row, a letter first"
        )
    if not _SET.fullmatch(names.set) or "--" in names.set:
        raise ValueError(
            f"Neuronpedia takes no set called {names.set!r} from its users: lower-case letters, digits and single "
            "dashes"
        )
    if names.layer is None or names.suffix is not None:
        raise ValueError(f"Neuronpedia takes no source {names.source} from its users: it is a layer's number and a set")


def model(about: About) -> Record:
    """The body for MODEL. Raises ValueError for what would be refused."""
    check_names(about.names)
    if about.layers > MOST_LAYERS:
        raise ValueError(f"Neuronpedia takes models of up to {MOST_LAYERS} layers from its users, not {about.layers}")
    return {"id": about.names.model, "layers": about.layers}


def source_set(about: About) -> Record:
    """The body for SOURCE_SET. Raises ValueError for what would be refused."""
    check_names(about.names)
    text = clean(about.description)
    if not 1 <= len(text) <= MOST_DESCRIPTION:
        raise ValueError(f"the description of a set has 1 to {MOST_DESCRIPTION} characters, not {len(text)}")
    found = {"modelId": about.names.model, "name": about.names.set, "description": text}
    return {**found, "url": about.urls[0]} if about.urls else found


def features(pages: Pages, about: About, labels: Mapping[int, Label], after: int = 0) -> Iterator[Upload]:
    """The requests for FEATURES, in order; ``after`` of the last one that was taken gives those that are left, as they
    would have been. Raises ValueError for what would be refused.
    """
    check_names(about.names)
    if pages.d_sae > MOST_INDEX + 1:
        raise ValueError(f"Neuronpedia takes features up to {MOST_INDEX:,} from its users, not {pages.d_sae - 1:,}")
    for first in range(after, pages.d_sae, AT_ONCE):
        found, last = [], min(first + AT_ONCE, pages.d_sae)
        for index in range(first, last):
            if one := feature(pages, about, index, labels.get(index)):
                found.append(one)
        head = {"modelId": about.names.model, "source": about.names.source}
        body = {**head, "features": found} if found else None
        yield Upload(body, tuple(one["index"] for one in found), last - first - len(found), last)


def feature(pages: Pages, about: About, index: int, label: Label | None) -> Record | None:
    """One feature of a request; None when there is no example, without which none is taken."""
    page = pages.page(index)
    shown = _activations(pages, page)
    if not shown:
        return None
    found = {"index": index, "density": page["density"], "activations": shown}
    for name, end in (("topLogits", "top"), ("bottomLogits", "bottom")):
        if page["logits"]:
            some = page["logits"][end][:MOST_LOGITS]
            found[name] = [{"token": clean(one["text"]), "value": one["value"]} for one in some]
    return {**found, "explanations": [_explanation(about, index, label)]} if label else found


def _activations(pages: Pages, page: Page) -> list[Record]:
    drawn, found = bars.of_activations(pages, page), []
    for one in page["examples"]:
        tokens = clean_all(one["texts"][:MOST_TOKENS])  # the peak is among them: 512 come before it
        record: dict[str, Any] = {"tokens": tokens, "values": one["activations"][:MOST_TOKENS]}
        known = bars.interval(page, drawn, one) if one["kind"] != "top" else None
        if known:
            record |= dict(zip(("quantileMin", "quantileMax", "quantileFraction"), known, strict=True))
        found.append(record)
    return found


def _explanation(about: About, index: int, label: Label) -> Record:
    text = clean(label["text"]).strip()
    if not 1 <= len(text) <= MOST_LABEL:
        raise ValueError(
            f"the label of feature {index} has {len(text)} characters: Neuronpedia takes 1 to {MOST_LABEL}"
        )
    named = {"methodName": records.method_of(label), "modelName": records.model_of(about, label)}
    return {"text": text, **{name: value for name, value in named.items() if value}}
