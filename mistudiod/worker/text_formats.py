"""Text out of files: .txt, .md and .py (one document), .jsonl (one object per line), .parquet. A piece at a time.

All that can be wrong with a file is said by Refused, in one sentence. Files may be far larger than memory: a text
longer than ``PIECE_CHARS`` comes as several rows, of which all but the first are marked as continuing.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mistudiod.worker.link import Refused

PIECE_CHARS = 1 << 17  # small enough that all cores have a part of one long document to tokenize
_BLOCK_BYTES = 1 << 20
_MAX_LINE_BYTES = 256 << 20
_LINE_END = re.compile(r"\n(?=\S)")


@dataclass(frozen=True)
class Row:
    """A document or a piece of one; ``text`` is empty when the document is blank."""

    text: str
    name: str | None
    held_out: bool
    continues: bool
    source_bytes: float  # of the source, read for this row


@dataclass(frozen=True)
class TextFile:
    """A file that has been looked at, not read yet. ``columns`` are those that its rows give a meaning."""

    columns: set[str]
    total_bytes: int
    rows: Callable[[], Iterator[Row]]


def fault(message: str, field: str = "source") -> Refused:
    """The refusal of a source; bytes of a file's name that are no UTF-8 are shown as '?'."""
    return Refused(message.encode(errors="replace").decode(), field)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading ``path`` into one sentence."""
    try:
        yield
    except OSError as error:
        raise fault(f"cannot read {error.filename or path}: {_line(error.strerror or error)}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:  # only Arrow decodes without looking first
        raise fault(f"{path} is no undamaged parquet file: {_line(error)}") from error


def _line(error: object) -> str:
    return (str(error).splitlines() or ["unknown error"])[0][:300]


# .txt, .md, .py


def _open_text(path: Path, name: str, _text_column: str) -> TextFile:
    with reading(path):
        size = path.stat().st_size
    return TextFile(_columns(size, {"text", "name"}), size, partial(_text_rows, path, name))


def _text_rows(path: Path, name: str) -> Iterator[Row]:
    waiting, read_bytes, begun = "", 0, False
    for block, block_bytes in _decoded(path):
        waiting, read_bytes = waiting + block, read_bytes + block_bytes
        while len(waiting) > PIECE_CHARS:
            at = _cut(waiting, 0)
            piece, waiting = waiting[:at], waiting[at:]
            if begun or piece.strip():
                yield Row(piece, name, False, begun, read_bytes)
                read_bytes, begun = 0, True
    if not begun and not waiting.strip():
        waiting = ""
    yield Row(waiting, name, False, begun, read_bytes)


def _decoded(path: Path) -> Iterator[tuple[str, int]]:
    """The text block by block, each with its size in bytes; a leading byte order mark is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = 0
    with reading(path), open(path, "rb") as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            pending = len(decoder.getstate()[0])
            if b"\0" in block:
                raise fault(f"{path} is not text: byte {start + block.index(0)} is NUL")
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise fault(f"{path} is not text: byte {start - pending + error.start} is not UTF-8") from None
            if not block:
                return
            yield text.removeprefix("\ufeff") if start == 0 else text, len(block)
            start += len(block)


# .jsonl


def _open_jsonl(path: Path, _name: str, text_column: str) -> TextFile:
    with reading(path):
        size = path.stat().st_size
    first = next(_objects(path), None)
    if first is None:
        return TextFile(set(), size, lambda: iter(()))
    number, record, _ = first
    _text_of(record, text_column, path, number)
    columns = {"text"}
    if text_column != "name" and isinstance(record.get("name"), str):
        columns.add("name")
    if isinstance(record.get("held_out"), bool):
        columns.add("held_out")
    return TextFile(_columns(size, columns), size, partial(_jsonl_rows, path, text_column, columns))


def _jsonl_rows(path: Path, text_column: str, columns: set[str]) -> Iterator[Row]:
    for number, record, line_bytes in _objects(path):
        text = _text_of(record, text_column, path, number)
        name = record.get("name") if "name" in columns else None
        held_out = record.get("held_out") if "held_out" in columns else None
        if held_out is not None and not isinstance(held_out, bool):
            raise fault(f"{path}, line {number}: 'held_out' is neither true nor false")
        yield from _rows(text, name if isinstance(name, str) else None, bool(held_out), line_bytes)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object], int]]:
    """Line number from 1, object and bytes of every line that is not blank."""
    number = 0
    with reading(path), open(path, "rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            number += 1
            if len(line) == _MAX_LINE_BYTES:
                raise fault(f"{path}, line {number} is longer than {_MAX_LINE_BYTES >> 20} MB")
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield number, _parsed(text, path, number), len(line)


def _parsed(line: bytes, path: Path, number: int) -> dict[str, object]:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise fault(f"{path}, line {number} is not JSON: {_line(error)}") from None
    if not isinstance(record, dict):
        raise fault(f"{path}, line {number} is not a JSON object")
    return record


def _text_of(record: dict[str, object], text_column: str, path: Path, number: int) -> str:
    if text_column not in record:
        raise _no_column(f"{path}, line {number}", text_column, list(record))
    text = record[text_column]
    if text is not None and not isinstance(text, str):
        raise fault(f"{path}, line {number}: {text_column!r} holds no text but {json.dumps(text)[:60]}", "text_column")
    for value in (text, record.get("name")):
        if isinstance(value, str) and not _encodable(value):
            raise fault(f"{path}, line {number} has a \\u escape that is half a character: it is not Unicode text")
    return text or ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# .parquet


def _open_parquet(path: Path, _name: str, text_column: str) -> TextFile:
    with reading(path), pq.ParquetFile(path) as file:
        schema, size, count = file.schema_arrow, path.stat().st_size, file.metadata.num_rows
        text_bytes = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    at = schema.get_field_index(text_column)  # -1 also for a name that occurs twice
    if at < 0:
        raise _no_column(str(path), text_column, schema.names)
    if not _is_text(schema.field(at).type):
        raise fault(f"the column {text_column!r} of {path} holds no text but {schema.field(at).type}", "text_column")
    columns = {"text"}
    name_at, held_out_at = schema.get_field_index("name"), schema.get_field_index("held_out")
    if text_column != "name" and name_at >= 0 and _is_text(schema.field(name_at).type):
        columns.add("name")
    if held_out_at >= 0 and pa.types.is_boolean(schema.field(held_out_at).type):
        columns.add("held_out")
    in_batch = max(1, min(4096, 4 * _BLOCK_BYTES * count // max(text_bytes, 1)))
    row_bytes = size / max(count, 1)
    rows = partial(_parquet_rows, path, text_column, columns, in_batch, row_bytes)
    return TextFile(_columns(text_bytes, columns), size, rows)


def _parquet_rows(path: Path, text_column: str, columns: set[str], in_batch: int, row_bytes: float) -> Iterator[Row]:
    wanted = [text_column, *sorted(columns & {"name", "held_out"})]
    with reading(path), pq.ParquetFile(path, buffer_size=_BLOCK_BYTES, pre_buffer=False) as file:
        for batch in file.iter_batches(in_batch, columns=wanted):
            for record in batch.to_pylist():
                held_out = bool(record["held_out"]) if "held_out" in columns else False
                name = record["name"] if "name" in columns else None
                yield from _rows(record[text_column] or "", name, held_out, row_bytes)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


# all of them


def _columns(source_bytes: int, columns: set[str]) -> set[str]:
    """Only a source with room for a long text needs the column that marks pieces."""
    return columns | {"continues"} if source_bytes > PIECE_CHARS else columns


def _no_column(where: str, text_column: str, there_are: list[str]) -> Refused:
    listed = ", ".join(repr(name) for name in there_are[:50]) or "none"
    return fault(f"{where} has no column {text_column!r}; there are: {listed}", "text_column")


def _rows(text: str, name: str | None, held_out: bool, source_bytes: float) -> Iterator[Row]:
    if not text.strip():
        text = ""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = _cut(text, start)
        yield Row(text[start:end], name, held_out, start > 0, source_bytes if start == 0 else 0)
        start = end
    yield Row(text[start:], name, held_out, start > 0, source_bytes if start == 0 else 0)


def _cut(text: str, start: int) -> int:
    """Where a piece ends: at the end of a line, else before a space, else anywhere."""
    end = start + PIECE_CHARS
    ends = [found.end() for found in _LINE_END.finditer(text, end - PIECE_CHARS // 8, end)]
    space = text.rfind(" ", start + 1, end)
    return ends[-1] if ends else space if space > 0 else end


OPENERS: dict[str, Callable[[Path, str, str], TextFile]] = {
    ".txt": _open_text,
    ".md": _open_text,
    ".py": _open_text,
    ".jsonl": _open_jsonl,
    ".parquet": _open_parquet,
}
