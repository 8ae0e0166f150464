"""A preview: what a source of text is, and its first rows, before anything of it is stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from mistudiod.specs import PreviewDataset
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.tables import TEXT, Table
from mistudiod.worker.text_formats import document_rows
from mistudiod.worker.texts import Found, builtin, find, open_table

_VALUE_CHARS, _NAME_CHARS = 500, 100
_RESULT_BYTES = 56_000  # a line of a worker's may have 64 KiB
_COLUMNS = 60  # shown; some datasets have thousands


def run(spec: PreviewDataset, link: Link) -> None:
    """The result is {source, revision, licence, config, configs, split, splits, files, bytes, documents, columns,
    text_columns, text_column, rows}; null where there is no such thing or nobody can say.

    ``columns`` is [{name, type}] and ``rows`` a list of {name: value}, values cut short. ``text_columns`` could be the
    text; ``text_column`` is the one that would be taken. ``documents`` is estimated from the first file.
    """
    said: dict[str, object] = dict.fromkeys(("revision", "licence", "config", "configs", "split", "splits"))
    if spec.source.startswith("builtin:"):
        source = builtin(spec)
        rows = [{"text": row.text, "name": row.name} for row in islice(source.rows, spec.rows)]
        shown = _of_documents(rows) | {"files": None, "bytes": source.total_bytes, "documents": source.documents}
    else:
        try:
            found = find(spec, link, or_first=True)
        except Refused as refused:
            configs = getattr(refused, "configs", None)
            if configs is None:
                raise
            shown = _unchosen(configs)
        else:
            said |= {**found.said, **found.choices}
            shown = _shown(found, spec.rows)
    link.result(_short({"source": spec.source, **said, **shown}))


def _unchosen(configs: list[str]) -> dict[str, object]:
    """Of a dataset of which nothing can be shown until one of ``configs`` is chosen."""
    nothing = {"columns": [], "text_columns": [], "text_column": None, "rows": []}
    return {"configs": configs, "files": None, "bytes": None, "documents": None, **nothing}


def _shown(found: Found, count: int) -> dict[str, object]:
    first = found.files[0]
    table = open_table(first)
    documents = 1 if table is None else table.documents
    if documents is not None:
        documents = round(documents * found.total_bytes / (first.size or 1))
    known = {
        "files": len(found.files),
        "bytes": found.total_bytes,
        "documents": documents if found.documents is None else found.documents,
    }
    if table is not None:
        return known | _of_table(table, count)
    with closing(document_rows(first)) as rows:
        return known | _of_documents([{"text": row.text, "name": row.name} for row in islice(rows, 1)])


def _of_documents(rows: list[dict[str, object]]) -> dict[str, object]:
    columns = [{"name": "text", "type": TEXT}, {"name": "name", "type": TEXT}]
    return {"columns": columns, "text_columns": [], "text_column": None, "rows": rows}


def _of_table(table: Table, count: int) -> dict[str, object]:
    try:
        text_column = table.text_column(None)
    except Refused:
        text_column = None
    names = list(table.columns)[:_COLUMNS]
    with closing(_first(table, count)) as records:
        rows = [{_shown_name(name): record[name] for name in names if name in record} for record in records]
    return {
        "columns": [{"name": _shown_name(name), "type": table.columns[name]} for name in names],
        "text_columns": [_shown_name(name) for name in table.likely[:_COLUMNS]],
        "text_column": None if text_column is None else _shown_name(text_column),
        "rows": rows,
    }


def _first(table: Table, count: int) -> Iterator[dict[str, object]]:
    with closing(table.records(None, None)) as records:
        for record in islice(records, count):
            yield record.values


def _short(result: dict[str, object]) -> dict[str, object]:
    """Cut so far that it fits into one line."""
    rows, chars = result["rows"], _VALUE_CHARS
    assert isinstance(rows, list)
    while True:
        result["rows"] = [{name: _value(value, chars) for name, value in row.items()} for row in rows]
        if len(json.dumps(result).encode()) <= _RESULT_BYTES:
            return result
        if chars == 0:
            rows = rows[: len(rows) // 2]
        chars //= 2


def _value(value: object, chars: int) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return _unicode(text[:chars])


def _shown_name(name: str) -> str:
    return _unicode(name[:_NAME_CHARS])


def _unicode(text: str) -> str:
    """JSON can hold halves of characters, but no answer can."""
    return text.encode(errors="replace").decode()
