"""A v1 folder read back, ours or one that was fetched from Neuronpedia's bucket.

In exports of its database, batch k of features and batch k of activations are about different features: whatever
belongs together is joined by index, over all files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistudiod.neuronpedia.lines import batch_files, lines, row
from mistudiod.neuronpedia.names import index_of
from mistudiod.neuronpedia.records import clean

PROVIDER = "neuronpedia"  # of labels, here; a person there is not one here
META = ("release", "model", "sourceset", "source")
LABEL_CHARS, EXPLANATION_CHARS, KNOWN_CHARS = 200, 2000, 200  # of a label here
Row = dict[str, Any]


@dataclass
class Feature:
    """``row``: of the table of features, None when there is only the rest; ``activations`` as the files have them."""

    row: Row | None = None
    activations: list[Row] = field(default_factory=list)
    explanations: list[Row] = field(default_factory=list)


def meta(folder: Path) -> dict[str, Row]:
    """The first row of each of the four files about the export, by name; of one that is not there nothing."""
    found = {}
    for name in META:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            for line in lines(path):
                found[name] = _row(path, 1, line)
                break
    return found


def rows(folder: Path, kind: str) -> Iterator[tuple[int, Row]]:
    """Of ``features``, ``activations`` or ``explanations`` every row, with the index of its feature.

    Raises ValueError, naming file and line, for what is no such row.
    """
    for _, path in batch_files(folder / kind):
        for number, line in enumerate(lines(path), 1):
            if line.strip():
                found = _row(path, number, line)
                index = index_of(found.get("index"))
                if index is None:
                    raise ValueError(f"{path.name}, line {number:,}: {found.get('index')!r} is no index of a feature")
                yield index, found


def features(folder: Path, indices: Collection[int]) -> dict[int, Feature]:
    """All that the files have of some features, in one pass over each of them; none of one that they do not name.

    What is asked for is in memory, so ask for some at a time. Raises ValueError as ``rows``.
    """
    wanted, found = frozenset(indices), dict[int, Feature]()
    for kind in ("features", "activations", "explanations"):
        for index, one in rows(folder, kind):
            if index in wanted:
                feature = found.setdefault(index, Feature())
                if kind == "features":
                    feature.row = one
                else:
                    (feature.activations if kind == "activations" else feature.explanations).append(one)
    return found


def width(folder: Path, kind: str) -> int:
    """Features of an SAE at least, by the rows of a kind; 0 when there is none. Raises ValueError as ``rows``."""
    return max((index + 1 for index, _ in rows(folder, kind)), default=0)


def labels(folder: Path, skipped: Counter[str] | None = None) -> Iterator[Row]:
    """Every explanation as a label that this studio takes in: ``template`` is the method, ``explanation`` the notes.

    A text that is longer than labels are here is cut, and stands whole in ``explanation`` when there are no notes;
    what is no label is left out, and counted in ``skipped`` by the reason. Raises ValueError as ``rows``.
    """
    for index, one in rows(folder, "explanations"):
        whole = one.get("description")
        if not isinstance(whole, str) or not whole.strip():
            if skipped is not None:
                skipped["without a text, left out"] += 1
            continue
        text, notes = clean(whole.strip()), _text(one.get("notes"), EXPLANATION_CHARS)
        if len(text) > LABEL_CHARS:
            text, notes = text[: LABEL_CHARS - 1].rstrip() + "…", notes or text[:EXPLANATION_CHARS]
        yield {
            "feature": index,
            "text": text,
            "explanation": notes,
            "provider": PROVIDER,
            "model": _text(one.get("explanationModelName"), KNOWN_CHARS),
            "template": _text(one.get("typeName"), KNOWN_CHARS),
            "created_at": _text(one.get("createdAt"), KNOWN_CHARS),
        }


def _text(value: object, most: int) -> str | None:
    return clean(value[:most]) if isinstance(value, str) and value else None


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        return row(line)
    except ValueError as error:
        raise ValueError(f"{path.name}, line {number:,} {error}") from None
