""".parquet and .arrow: a part of a row group or batch at a time, and of a far file only the ranges that are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from mistudiod.worker.source_files import SourceFile, damaged, fault, opened, reading
from mistudiod.worker.tables import BOOL, TEXT, Record, Table

_BATCH_BYTES, _BATCH_ROWS = 4 << 20, 4096  # what is held of a column as Python's strings
_READ_BYTES = 1 << 16  # of a column at a time; a far file reads ahead by itself
_MAGIC = b"ARROW1\0\0"  # in front of the stream of batches that a .arrow file may be instead


def open_parquet(file: SourceFile) -> Table:
    """Raises Refused. Only the end of the file is read, where its row groups are listed."""
    if file.packed:
        raise fault(f"{file.shown} is packed twice, for parquet files are packed inside: unpack it first")
    with _parquet(file) as opened_file:
        schema, metadata = opened_file.schema_arrow, opened_file.metadata
        names = _once(schema)
        columns = {name: _type(schema.field(name).type) for name in names}
        sizes = _sizes(metadata)
    likely = [name for name in names if columns[name] == TEXT]
    records = partial(_parquet_records, file, metadata, sizes)
    return Table(file, columns, likely, metadata.num_rows, lambda column: sizes.get(column, (0, 0)), records)


@contextmanager
def _parquet(file: SourceFile, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    with reading(file), ExitStack() as stack:
        raw = stack.enter_context(file.open())
        # Not pre_buffer, which would read and hold whole row groups, and those may be of a million rows.
        found = pq.ParquetFile(raw, metadata=metadata, buffer_size=_READ_BYTES, pre_buffer=False)
        try:
            yield stack.enter_context(found)
        except UnicodeDecodeError as error:  # only Arrow decodes without looking first
            raise damaged(file, error) from error


def _sizes(metadata: pq.FileMetaData) -> dict[str, tuple[int, int]]:
    """Of each column: bytes in the file, and bytes unpacked."""
    found: dict[str, tuple[int, int]] = {}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            packed, unpacked = found.get(column.path_in_schema, (0, 0))
            found[column.path_in_schema] = (
                packed + column.total_compressed_size,
                unpacked + column.total_uncompressed_size,
            )
    return found


def _parquet_records(
    file: SourceFile,
    metadata: pq.FileMetaData,
    sizes: dict[str, tuple[int, int]],
    columns: list[str] | None,
    random: Random | None,
) -> Iterator[Record]:
    wanted_bytes = sum(unpacked for name, (_, unpacked) in sizes.items() if columns is None or name in columns)
    in_batch = max(1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(wanted_bytes, 1)))
    row_bytes = file.size / max(metadata.num_rows, 1)
    groups = list(range(metadata.num_row_groups))
    if random is not None:
        random.shuffle(groups)
    with _parquet(file, metadata) as opened_file:
        for batch in opened_file.iter_batches(in_batch, groups, columns, use_threads=False):
            for values in batch.to_pylist():
                yield Record(file.shown, values, row_bytes)


def open_arrow(file: SourceFile) -> Table:
    """A stream of batches, or a file of them. Raises Refused."""
    with _batches(file) as (schema, _):
        names = _once(schema)
        columns = {name: _type(schema.field(name).type) for name in names}
    likely = [name for name in names if columns[name] == TEXT]
    return Table(file, columns, likely, None, lambda _: (file.size, file.size), partial(_arrow_records, file))


@contextmanager
def _batches(file: SourceFile) -> Iterator[tuple[pa.Schema, Iterator[tuple[pa.RecordBatch, int]]]]:
    """The schema, and the batches, each with the bytes of the file read for it."""
    with opened(file) as (stream, taken), ExitStack() as stack:
        source: Any = stream
        begins = len(_MAGIC) if stream.peek(len(_MAGIC))[: len(_MAGIC)] == _MAGIC else 0
        if file.path is not None and file.packed is None:  # a batch may be larger than memory: this reads on demand
            source = stack.enter_context(pa.memory_map(str(file.path)))
            source.seek(begins)
            taken = source.tell
        else:
            stream.read(begins)
        reader = stack.enter_context(pa.ipc.open_stream(source))
        try:
            yield reader.schema, _counted(reader, taken)
        except UnicodeDecodeError as error:
            raise damaged(file, error) from error


def _counted(reader: Any, taken: Callable[[], int]) -> Iterator[tuple[pa.RecordBatch, int]]:
    before = 0
    for batch in reader:
        now = taken()
        yield batch, now - before
        before = now


def _arrow_records(file: SourceFile, columns: list[str] | None, _random: Random | None) -> Iterator[Record]:
    with _batches(file) as (_, batches):
        for whole, read_bytes in batches:
            batch = whole if columns is None else whole.select(columns)
            batch.validate(full=True)  # Arrow takes what lies there as it is
            at_once = max(1, min(_BATCH_ROWS, _BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
            for start in range(0, batch.num_rows, at_once):
                for values in batch.slice(start, at_once).to_pylist():
                    yield Record(file.shown, values, read_bytes / batch.num_rows)


def _once(schema: pa.Schema) -> list[str]:
    """The names of columns, without those that occur twice, of which none can be asked for."""
    return [name for name in schema.names if schema.get_field_index(name) >= 0]


def _type(kind: pa.DataType) -> str:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if any(is_kind(value) for is_kind in is_text):
        return TEXT
    return BOOL if pa.types.is_boolean(kind) else str(kind)[:100]
