"""A preview: a few documents from all over a dataset, cut short."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow.parquet as pq

from mistudiod.specs import SampleDataset
from mistudiod.worker.link import Link
from mistudiod.worker.stored_dataset import StoredDataset, reading_dataset, stored_dataset

_TEXT_CHARS, _NAME_CHARS = 500, 200
_RESULT_BYTES = 60_000  # a line of a worker's may have 64 KiB


def run(spec: SampleDataset, link: Link) -> None:
    """The result is {dataset, rows: [{text, name or null, held_out or null}]}."""
    dataset = stored_dataset(link, spec.dataset)
    with reading_dataset(spec.dataset):
        rows = list(_sample(dataset, spec.rows))
    chars = _TEXT_CHARS
    while len(json.dumps(rows, ensure_ascii=False).encode()) > _RESULT_BYTES:
        chars //= 2
        rows = [row | {"text": str(row["text"])[:chars]} for row in rows]
    link.result({"dataset": spec.dataset, "rows": rows})


def _sample(dataset: StoredDataset, count: int) -> Iterator[dict[str, object]]:
    """Rows at even distances; only the row groups that hold them are read."""
    total = sum(pq.read_metadata(path).num_rows for path in dataset.files)
    wanted = sorted({i * total // count for i in range(count)}) if total else []
    first = 0
    for path in dataset.files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                after = first + file.metadata.row_group(group).num_rows
                inside = [at - first for at in wanted if first <= at < after]
                if inside:
                    yield from (_shown(row) for row in file.read_row_group(group).take(inside).to_pylist())
                first = after


def _shown(row: dict[str, object]) -> dict[str, object]:
    name = row.get("name")
    return {
        "text": str(row["text"])[:_TEXT_CHARS],
        "name": None if name is None else str(name)[:_NAME_CHARS],
        "held_out": row.get("held_out"),
    }
