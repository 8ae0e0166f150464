"""Bring text into the studio: read a source once, write it as parquet, say what came."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from mistudiod.paths import require_space
from mistudiod.specs import AddDataset
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.text_formats import Row
from mistudiod.worker.texts import Source, open_source

_GROUP_BYTES, _GROUP_ROWS = 8 << 20, 10_000  # of text in a row group: what is held in memory
_FILE_BYTES = 500_000_000
_BYTES_PER_TOKEN = 5  # of most text at the most: a model's tokenizer finds at least about as many tokens as asked for
_TYPES = {"text": pa.string(), "name": pa.string(), "held_out": pa.bool_(), "continues": pa.bool_()}


def run(spec: AddDataset, link: Link) -> None:
    """Write ``datasets/<name>/``; ``dataset.json`` is the job's result.

    ``rows`` counts documents. A document too long for one row of the parquet files goes on in the next, where
    ``continues`` is true; the column is there only when the source is large enough to have such documents.
    ``asked`` is how it was to be cut, and ``is_cut`` whether the source has more.
    """
    final = link.paths.artifact("dataset", spec.name)
    if final.exists():
        found = _made_before(final, spec)
    else:
        link.progress("look at the source", 0)
        source = open_source(spec, link)
        with new_folder(final, _needed_bytes(source, spec)) as partial:
            found = {"name": spec.name, "source": spec.source, **source.said, **_write(source, partial, spec, link)}
            text = json.dumps(found, indent=1, ensure_ascii=False)
            (partial / "dataset.json").write_text(text + "\n", encoding="utf-8")
    link.artifact("dataset", spec.name)
    link.result(found)


def _asked(spec: AddDataset) -> dict[str, object]:
    return spec.model_dump(include={"config", "split", "text_column", "rows", "tokens", "bytes", "shuffle_seed"})


def _most_bytes(spec: AddDataset) -> int | None:
    """Of text, after which no more is taken; None when only rows or the source's end decide."""
    asked = [spec.bytes, None if spec.tokens is None else spec.tokens * _BYTES_PER_TOKEN]
    return min((count for count in asked if count is not None), default=None)


def _made_before(final: Path, spec: AddDataset) -> dict[str, object]:
    """What an earlier run of this job wrote before it was cut off."""
    found: dict[str, object] = json.loads((final / "dataset.json").read_text(encoding="utf-8"))
    if found["source"] != spec.source or found.get("asked", _asked(spec)) != _asked(spec):
        raise Refused(f"there is already a dataset called {spec.name}, from {found['source']}", "name")
    return found


def _needed_bytes(source: Source, spec: AddDataset) -> int:
    """On disk, as far as that can be told; what cannot is looked at while it is written."""
    share = 1.0
    if spec.rows and source.documents:
        share = min(spec.rows / source.documents, 1.0)
    elif spec.rows:
        share = 0.0
    return int(min(source.stored_bytes * share, _most_bytes(spec) or float("inf")))


def _write(source: Source, folder: Path, spec: AddDataset, link: Link) -> dict[str, object]:
    come, is_cut = _Come(source, spec), False
    with _Files(folder, source.columns) as files:
        for row in source.rows:
            link.check()
            if come.is_enough(row):
                is_cut = True
                break
            come.count(row, files.add(row) if row.text else 0)
            link.progress("read", *come.progress())
        link.progress("read", *come.ended())
    if not come.rows:
        raise Refused(f"{spec.source} has no text: every document is blank ({come.blank} read)", "source")
    return {
        "rows": come.rows,
        "blank_rows": come.blank,
        "bytes": come.text_bytes,
        "held_out_rows": come.held_out if "held_out" in source.columns else None,
        "columns": source.columns,
        "text_column": source.text_column,
        "asked": _asked(spec),
        "is_cut": is_cut,
    }


class _Come:
    """What has come so far, and whether it is enough."""

    def __init__(self, source: Source, spec: AddDataset) -> None:
        self._source, self._rows, self._most_bytes = source, spec.rows, _most_bytes(spec)
        self.rows = self.blank = self.held_out = self.text_bytes = 0
        self._read_bytes = 0.0

    def is_enough(self, row: Row) -> bool:
        """Whether ``row``, the next one, is to be left out: documents stay whole where rows are counted."""
        if self._most_bytes is not None and self.text_bytes >= self._most_bytes:
            return True
        return self._rows is not None and self.rows >= self._rows and not row.continues

    def count(self, row: Row, text_bytes: int) -> None:
        self._read_bytes += row.source_bytes
        self.text_bytes += text_bytes
        if not row.text:
            self.blank += 1
        elif not row.continues:
            self.rows += 1
            self.held_out += row.held_out

    def progress(self) -> tuple[float, float, str]:
        """Done, total and unit: towards the rows that were asked for, else the bytes, else the source's end."""
        if self._rows is not None:
            known = self._source.documents
            return self.rows, max(min(self._rows, known or self._rows), self.rows), "rows"
        if self._most_bytes is not None:
            return min(self.text_bytes, self._most_bytes), self._most_bytes, "bytes"
        return min(self._read_bytes, self._source.total_bytes), self._source.total_bytes, "bytes"

    def ended(self) -> tuple[float, float, str]:
        """As ``progress``, once nothing more is to come."""
        done, total, unit = self.progress()
        ended = total if self._rows is None and self._most_bytes is None else done
        return ended, ended, unit


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
        require_space(self._folder, self._waiting_bytes)
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
