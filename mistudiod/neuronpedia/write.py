"""A feature store as the folder that Neuronpedia imports, layout v1:

    release.jsonl model.jsonl sourceset.jsonl source.jsonl
    features/batch-{k}.jsonl.gz  activations/batch-{k}.jsonl.gz  explanations/batch-{k}.jsonl.gz

Batch k of all three is about the same features. A file without a line would stop the import: it is not written.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from mistudiod.neuronpedia import bars, records
from mistudiod.neuronpedia.records import About, Label, Record, encode
from mistudiod.pages import Pages

ROWS = 1024  # features of a batch, at most
FILES = 1000  # of a folder that the importer lists
BYTES = 128 << 20  # of a batch's activations: 65,000 lines of a file are inserted at once, and 200 MB are too many
LEVEL = 5
KINDS = ("features", "activations", "explanations")


def batches(features: int) -> int:
    """Files in each folder, where no batch is cut short by BYTES. Raises ValueError when there are more than FILES."""
    count = -(-features // ROWS)
    if count > FILES:
        raise ValueError(
            f"an SAE of {features:,} features makes {count:,} files, and Neuronpedia imports {FILES:,} of a folder"
        )
    return count


def write(
    folder: Path,
    pages: Pages,
    about: About,
    labels: Mapping[int, Label],
    heard: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """Fill an empty folder, which is to lie at ``{model}/{source}``. ``labels``: of features the one that is shown.

    ``heard`` is told how many features are written, and may raise. The same arguments give the same bytes. Returns
    rows of each kind, and batches. Raises ValueError when a folder would hold too many files or a record is damaged.
    """
    batches(pages.d_sae)
    for name, make in (
        ("release", records.release),
        ("model", records.model),
        ("sourceset", records.source_set),
        ("source", records.source),
    ):
        (folder / f"{name}.jsonl").write_bytes(encode(make(about)))
    counts, first, batch = dict.fromkeys(KINDS, 0), 0, 0
    while first < pages.d_sae:
        if batch >= FILES:
            raise ValueError(f"the examples are too large for {FILES:,} files: extract the features with fewer tokens")
        with Batch(folder, batch) as files:
            first = _write_batch(files, pages, about, labels, first, heard)
        for kind in KINDS:
            counts[kind] += files.rows[kind]
        batch += 1
    return {**counts, "batches": batch}


def _write_batch(
    files: Batch, pages: Pages, about: About, labels: Mapping[int, Label], first: int, heard: Callable[[int], None]
) -> int:
    """Returns the feature to go on with."""
    for index in range(first, min(first + ROWS, pages.d_sae)):
        page = pages.page(index)
        drawn = bars.of_activations(pages, page)
        files.add("features", [records.neuron(about, page, drawn)])
        files.add("activations", records.activations(about, page, drawn))
        if index in labels:
            files.add("explanations", [records.explanation(about, index, labels[index])])
        heard(index + 1)
        if files.bytes["activations"] >= BYTES:
            break
    return index + 1


class Batch:
    """The files of one batch, each made with its first row."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._stack, self._open = ExitStack(), dict[str, gzip.GzipFile]()
        self.rows, self.bytes = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def add(self, kind: str, rows: Iterable[Record]) -> None:
        for row in rows:
            file = self._open.get(kind) or self._begin(kind)
            self.bytes[kind] += file.write(encode(row))
            self.rows[kind] += 1

    def _begin(self, kind: str) -> gzip.GzipFile:
        path = self._folder / kind / f"batch-{self._number}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        plain = self._stack.enter_context(path.open("wb"))
        file = self._stack.enter_context(gzip.GzipFile("", "wb", LEVEL, plain, mtime=0))
        self._open[kind] = file
        return file
