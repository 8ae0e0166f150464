"""The texts of a dataset, in batches that one call of the tokenizer takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mistudiod.worker.stored_dataset import StoredDataset, reading_dataset
from mistudiod.worker.tokenize_pieces import Batch

BATCH_BYTES, BATCH_PIECES = 1 << 18, 1024  # a token takes the tokenizer some 100 bytes of memory while it is at it


def batches(dataset: StoredDataset) -> Iterator[Batch]:
    """The rows in order; no more than one row group of about 8 MiB is held. Raises Refused for a damaged dataset."""
    for path in dataset.files:
        with reading_dataset(dataset.name), pq.ParquetFile(path) as file:
            columns = [name for name in ("text", "held_out", "continues") if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):  # iter_batches would put many together
                yield from cut(file.read_row_group(group, columns=columns))


def cut(table: pa.Table) -> Iterator[Batch]:
    """Rows in batches."""
    if not table.num_rows:
        return
    ends = np.cumsum(pc.binary_length(table["text"]).to_numpy())
    begin = 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        fit = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        end = min(max(fit, begin + 1), begin + BATCH_PIECES)
        part = table.slice(begin, end - begin)
        none = [None] * part.num_rows
        yield Batch(
            part["text"].to_pylist(),
            part["continues"].to_pylist() if "continues" in part.column_names else [False] * part.num_rows,
            part["held_out"].to_pylist() if "held_out" in part.column_names else none,
        )
        begin = end


def piece_count(dataset: StoredDataset) -> int:
    """How many rows the files have: the most documents that can come."""
    with reading_dataset(dataset.name):
        return sum(pq.read_metadata(path).num_rows for path in dataset.files)
