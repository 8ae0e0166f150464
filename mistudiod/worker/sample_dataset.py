"""A preview: a few rows of a dataset, from all over it or one after the other, cut short."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow.parquet as pq

from mistudiod.specs import SampleDataset
from mistudiod.worker.link import Link
from mistudiod.worker.stored_dataset import StoredDataset, reading_dataset, stored_dataset

_NAME_CHARS = 200
_RESULT_BYTES = 60_000  # a line of a worker's may have 64 KiB


def run(spec: SampleDataset, link: Link) -> None:
    """The result is {dataset, offset or null, total, rows: [{row, text, characters, name or null, held_out or
    null, continues}]}; ``characters`` has the whole text, of which ``text`` is the beginning.

    ``total`` and ``row`` count rows as they are stored, from 0: a long document has several, of which all but the
    first are marked by ``continues``.
    """
    dataset = stored_dataset(link, spec.dataset)
    with reading_dataset(spec.dataset):
        total = sum(pq.read_metadata(path).num_rows for path in dataset.files)
        rows = list(_rows(dataset, _wanted(spec, total), spec.chars))
    chars = spec.chars
    while len(json.dumps(rows).encode()) > _RESULT_BYTES:
        chars //= 2
        rows = [row | {"text": str(row["text"])[:chars]} for row in rows]
    link.result({"dataset": spec.dataset, "offset": spec.offset, "total": total, "rows": rows})


def _wanted(spec: SampleDataset, total: int) -> list[int]:
    """Rows that follow each other from ``offset`` on, else rows at even distances."""
    if spec.offset is not None:
        return list(range(min(spec.offset, total), min(spec.offset + spec.rows, total)))
    return sorted({i * total // spec.rows for i in range(spec.rows)}) if total else []


def _rows(dataset: StoredDataset, wanted: list[int], chars: int) -> Iterator[dict[str, object]]:
    """Only the row groups that hold them are read."""
    first = 0
    for path in dataset.files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                after = first + file.metadata.row_group(group).num_rows
                inside = [at for at in wanted if first <= at < after]
                if inside:
                    found = file.read_row_group(group).take([at - first for at in inside]).to_pylist()
                    yield from (_shown(at, row, chars) for at, row in zip(inside, found, strict=True))
                first = after


def _shown(at: int, row: dict[str, object], chars: int) -> dict[str, object]:
    name, text = row.get("name"), str(row["text"])
    return {
        "row": at,
        "text": text[:chars],
        "characters": len(text),
        "name": None if name is None else str(name)[:_NAME_CHARS],
        "held_out": row.get("held_out"),
        "continues": bool(row.get("continues")),
    }
