"""A preview: which documents of a dataset the filters of a tokenization would leave out, told from some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mistudiod.engine.documents import Document, Filters
from mistudiod.specs import PreviewFilters
from mistudiod.worker.link import Link
from mistudiod.worker.stored_dataset import StoredDataset, reading_dataset, stored_dataset
from mistudiod.worker.tokenize import encoding_of
from mistudiod.worker.tokenize_batches import cut
from mistudiod.worker.tokenize_pieces import Encoder
from mistudiod.worker.tokenize_vocabulary import tokenized_model

_PLACES = 4  # of a dataset from which documents are taken: a row group of some MB is read for each
_TEXT_BYTES = 1 << 20  # of each place: a document may be long


def run(spec: PreviewFilters, link: Link) -> None:
    """The result is {dataset, documents, kept, dropped}: of so many documents, from ``_PLACES`` places of the dataset,
    so many are kept, and left out by which filter. One that is the same as another is so among these only.
    """
    dataset, model = stored_dataset(link, spec.dataset), tokenized_model(link, spec.model)
    filters = Filters(
        spec.shortest, spec.longest, spec.drop_duplicates, spec.max_unprintable, spec.must_match is not None
    )
    encoder = Encoder(encoding_of(spec, model))
    seen, dropped, count = set[bytes](), Counter[str](), 0
    for table in _places(dataset, spec.documents):
        for document in _documents(table, encoder):
            link.check()
            count += 1
            reason = filters.reason(document)
            if reason is None and filters.duplicates and document.digest in seen:
                reason = "drop_duplicates"
            seen.add(document.digest)
            if reason is not None:
                dropped[reason] += 1
    link.result(
        {"dataset": spec.dataset, "documents": count, "kept": count - dropped.total(), "dropped": dict(dropped)}
    )


def _places(dataset: StoredDataset, documents: int) -> Iterator[pa.Table]:
    """The first documents of row groups at even distances; none that goes on from the row group before."""
    with reading_dataset(dataset.name):
        groups = [(path, group) for path in dataset.files for group in range(pq.read_metadata(path).num_row_groups)]
    chosen = sorted({i * len(groups) // _PLACES for i in range(_PLACES)}) if groups else []
    for path, group in [groups[i] for i in chosen]:
        with reading_dataset(dataset.name), pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in ("text", "held_out", "continues") if name in names]
            yield _whole(file.read_row_group(group, columns=columns), -(-documents // len(chosen)))


def _whole(table: pa.Table, documents: int) -> pa.Table:
    """So many documents of a row group, from its first whole one on, of ``_TEXT_BYTES`` or one document at most."""
    goes_on = table["continues"].to_pylist() if "continues" in table.column_names else [False] * table.num_rows
    begins = [row for row, continues in enumerate(goes_on) if not continues]
    if not begins:
        return table.slice(0, 0)
    end, size = begins[0], 0
    for number, (begin, after) in enumerate(zip(begins, [*begins[1:], table.num_rows], strict=True)):
        size += table["text"].slice(begin, after - begin).nbytes
        if number >= documents or (number and size > _TEXT_BYTES):
            break
        end = after
    return table.slice(begins[0], end - begins[0])


def _documents(table: pa.Table, encoder: Encoder) -> Iterator[Document]:
    document: Document | None = None
    for batch in cut(table):
        pieces = encoder(batch)
        for i, continues in enumerate(pieces.continues):
            if document is None or not continues:
                if document is not None:
                    yield document
                document = Document()
            document.add(pieces, i)
    if document is not None:
        yield document
