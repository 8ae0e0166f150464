"""Bring text into the studio: read a source once, write it as parquet, say what came."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from mistudiod.specs import AddDataset
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.text_formats import Row
from mistudiod.worker.texts import Source, open_source
from mistudiod.worker.uploaded import place

_GROUP_BYTES, _GROUP_ROWS = 8 << 20, 10_000  # of text in a row group: what is held in memory
_FILE_BYTES = 500_000_000
_TYPES = {"text": pa.string(), "name": pa.string(), "held_out": pa.bool_(), "continues": pa.bool_()}


def run(spec: AddDataset, link: Link) -> None:
    """Write ``datasets/<name>/``; ``dataset.json`` is the job's result.

    ``rows`` counts documents. A document too long for one row of the parquet files goes on in the next, where
    ``continues`` is true; the column is there only when the source is large enough to have such documents.
    """
    final = link.paths.artifact("dataset", spec.name)
    if final.exists():
        found = _made_before(final, spec)
    else:
        link.progress("look at the source", 0)
        source = open_source(place(spec.source, link), spec.text_column)
        with new_folder(final, source.total_bytes) as partial:
            found = {"name": spec.name, "source": spec.source, **_write(source, partial, spec, link)}
            text = json.dumps(found, indent=1, ensure_ascii=False)
            (partial / "dataset.json").write_text(text + "\n", encoding="utf-8")
    link.artifact("dataset", spec.name)
    link.result(found)


def _made_before(final: Path, spec: AddDataset) -> dict[str, object]:
    """What an earlier run of this job wrote before it was cut off."""
    found: dict[str, object] = json.loads((final / "dataset.json").read_text(encoding="utf-8"))
    if found["source"] != spec.source:
        raise Refused(f"there is already a dataset called {spec.name}, from {found['source']}", "name")
    return found


def _write(source: Source, folder: Path, spec: AddDataset, link: Link) -> dict[str, object]:
    rows = blank = held_out = text_bytes = 0
    read_bytes = 0.0
    with _Files(folder, source.columns) as files:
        for row in source.rows:
            link.check()
            read_bytes += row.source_bytes
            link.progress("read", min(read_bytes, source.total_bytes), source.total_bytes, "bytes")
            if not row.text:
                blank += 1
                continue
            rows += not row.continues
            held_out += row.held_out and not row.continues
            text_bytes += files.add(row)
    if not rows:
        raise Refused(f"{spec.source} has no text: {blank} documents, all of them blank", "source")
    return {
        "rows": rows,
        "blank_rows": blank,
        "bytes": text_bytes,
        "held_out_rows": held_out if "held_out" in source.columns else None,
        "columns": source.columns,
    }


class _Files:
    """data-00000.parquet and on: rows gather to row groups, row groups to files of about 500 MB."""

    def __init__(self, folder: Path, columns: list[str]) -> None:
        self._folder, self._schema = folder, pa.schema([(column, _TYPES[column]) for column in columns])
        self._waiting: list[Row] = []
        self._waiting_bytes = self._number = 0
        self._path = folder
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Row) -> int:
        """Returns the UTF-8 bytes of the row's text."""
        text_bytes = len(row.text.encode())
        self._waiting.append(row)
        self._waiting_bytes += text_bytes
        if self._waiting_bytes >= _GROUP_BYTES or len(self._waiting) >= _GROUP_ROWS:
            self._flush()
        return text_bytes

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            self._path = self._folder / f"data-{self._number:05}.parquet"
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
            self._number += 1
        columns = {name: [getattr(row, name) for row in self._waiting] for name in self._schema.names}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._waiting, self._waiting_bytes = [], 0
        if self._path.stat().st_size >= _FILE_BYTES:
            self._close()

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __enter__(self) -> _Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                self._close()
        finally:
            with suppress(OSError, ValueError):  # after a failure, of which this would only hide the reason
                self._close()
