"""Files that hold one document in each row: what columns they have, which of them is the text, and its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from mistudiod.worker.source_files import SourceFile, fault
from mistudiod.worker.text_formats import Row, rows_of

_USUAL = ("text", "content")  # a column of this name is the text, whatever others there are
TEXT, BOOL = "text", "bool"  # types that have a meaning here; any other is only shown


class Record(NamedTuple):
    """One row of a file. ``where`` is what a sentence calls it; ``source_bytes`` were read of the file for it."""

    where: str
    values: dict[str, object]
    source_bytes: float


@dataclass(frozen=True)
class Table:
    """A file that has been looked at, not read yet.

    ``columns`` maps each to its type; ``likely`` are those that could be the text. ``documents`` is None when only
    reading would tell. ``bytes_of`` a column is what it takes in the file and, at least as much as its longest text,
    unpacked. ``records`` takes the columns to read, None for all, and what to mix the row groups with, None for their
    order.
    """

    file: SourceFile
    columns: dict[str, str]
    likely: list[str]
    documents: int | None
    bytes_of: Callable[[str], tuple[int, int]]
    records: Callable[[list[str] | None, Random | None], Iterator[Record]]

    def text_column(self, asked: str | None) -> str:
        """Raises Refused."""
        if asked is not None:
            self.require(asked)
            return asked
        usual = [column for column in _USUAL if column in self.likely]
        candidates = usual or self.likely
        if not candidates:
            known = ", ".join(f"{name!r} ({kind})" for name, kind in list(self.columns.items())[:50]) or "none"
            raise fault(f"{self.file.shown} has no column of text; there are: {known}", "text_column")
        if len(candidates) > 1:
            named = ", ".join(map(repr, candidates[:50]))
            raise fault(f"the text of {self.file.shown} could be in any of {named}: say in which", "text_column")
        return candidates[0]

    def require(self, text_column: str) -> None:
        """Raises Refused when there is no such column, or it cannot hold text."""
        kind = self.columns.get(text_column)
        if kind is None:
            raise no_column(self.file.shown, text_column, list(self.columns))
        if kind != TEXT:
            raise fault(f"the column {text_column!r} of {self.file.shown} holds no text but {kind}", "text_column")

    def meaning(self, text_column: str) -> set[str]:
        """Which of a stored dataset's columns the rows have something for."""
        found = {"text"}
        if text_column != "name" and self.columns.get("name") == TEXT:
            found.add("name")
        if self.columns.get("held_out") == BOOL:
            found.add("held_out")
        return found

    def rows(self, text_column: str, random: Random | None) -> Iterator[Row]:
        """Raises Refused for a row without such a text."""
        self.require(text_column)
        meaning = self.meaning(text_column)
        wanted = [text_column, *sorted(meaning - {"text"})]
        for record in self.records(wanted, random):
            text = _text_of(record, text_column)
            name = record.values.get("name") if "name" in meaning else None
            held_out = record.values.get("held_out") if "held_out" in meaning else None
            if held_out is not None and not isinstance(held_out, bool):
                raise fault(f"{record.where}: 'held_out' is neither true nor false")
            yield from rows_of(text, name if isinstance(name, str) else None, bool(held_out), record.source_bytes)


def no_column(where: str, text_column: str, there_are: list[str]) -> Exception:
    listed = ", ".join(repr(name) for name in there_are[:50]) or "none"
    return fault(f"{where} has no column {text_column!r}; there are: {listed}", "text_column")


def _text_of(record: Record, text_column: str) -> str:
    values = record.values
    if text_column not in values:
        raise no_column(record.where, text_column, list(values))
    text = values[text_column]
    if text is not None and not isinstance(text, str):
        said = json.dumps(text, default=str)[:60]
        raise fault(f"{record.where}: {text_column!r} holds no text but {said}", "text_column")
    for value in (text, values.get("name")):
        if isinstance(value, str) and not _encodable(value):
            raise fault(f"{record.where} has a \\u escape that is half a character: it is not Unicode text")
    return text or ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
