""".jsonl (an object on each line), .json (a list of objects, or one after the other) and .csv, a row at a time."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from random import Random
from typing import BinaryIO

from mistudiod.worker.source_files import SourceFile, fault, first_line, opened
from mistudiod.worker.tables import BOOL, TEXT, Record, Table
from mistudiod.worker.text_formats import decoded

_MAX_ITEM_BYTES = 256 << 20
_LOOKED_AT = 100  # rows from which the columns are known
_SPACE = " \t\n\r"


def open_jsonl(file: SourceFile) -> Table:
    """Raises Refused."""
    return _table(file, _jsonl)


def open_json(file: SourceFile) -> Table:
    """Raises Refused."""
    return _table(file, _json)


def open_csv(file: SourceFile) -> Table:
    """The first row names the columns. Of these, one that holds nothing but numbers is not taken for the text."""
    columns = dict.fromkeys(_head(file), TEXT)
    with closing(_csv(file)) as rows:
        first = [record.values for record in islice(rows, _LOOKED_AT)]
    likely = [name for name in columns if any(not _is_number(str(row.get(name, ""))) for row in first)]
    return Table(file, columns, likely, None, lambda _: (file.size, file.size), lambda _columns, _random: _csv(file))


def _table(file: SourceFile, records: Callable[[SourceFile], Iterator[Record]]) -> Table:
    kinds: dict[str, str] = {}
    with closing(records(file)) as found:
        for record in islice(found, _LOOKED_AT):
            for name, value in record.values.items():
                if kinds.get(name, "null") == "null":
                    kinds[name] = _kind(value)
    likely = [name for name, kind in kinds.items() if kind == TEXT]
    if not likely:  # so far; a later row may tell
        likely = [name for name, kind in kinds.items() if kind == "null"]
        kinds |= dict.fromkeys(likely, TEXT)

    def read(_columns: list[str] | None, _random: Random | None) -> Iterator[Record]:
        return records(file)

    return Table(file, kinds, likely, None, lambda _: (file.size, file.size), read)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {str: TEXT, bool: BOOL, int: "number", float: "number", list: "list", dict: "object"}
    return names[type(value)]


# Lines


def _lines(file: SourceFile, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number from 1, and the line with its end; a leading byte order mark is left out."""
    number = 0
    while line := stream.readline(_MAX_ITEM_BYTES):
        number += 1
        if len(line) == _MAX_ITEM_BYTES:
            raise fault(f"{file.shown}, line {number} is longer than {_MAX_ITEM_BYTES >> 20} MB")
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _jsonl(file: SourceFile) -> Iterator[Record]:
    before = 0
    with opened(file) as (stream, taken):
        for number, line in _lines(file, stream):
            if not line.strip():
                continue
            where, now = f"{file.shown}, line {number}", taken()
            yield Record(where, _parsed(line, where), now - before)
            before = now


def _parsed(line: bytes, where: str) -> dict[str, object]:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise fault(f"{where} is not JSON: {first_line(error)}") from None
    return _object(record, where)


def _object(record: object, where: str) -> dict[str, object]:
    if not isinstance(record, dict):
        raise fault(f"{where} is not a JSON object")
    return record


# .json


def _json(file: SourceFile) -> Iterator[Record]:
    for number, (value, read_bytes) in enumerate(_values(file), 1):
        where = f"{file.shown}, item {number}"
        yield Record(where, _object(value, where), read_bytes)


def _values(file: SourceFile) -> Iterator[tuple[object, int]]:
    """Each value with the bytes of the file read for it."""
    decoder = json.JSONDecoder()
    text, at, tried, read_bytes = "", 0, 0, 0
    in_list, number = False, 1
    for block, block_bytes in _and_end(decoded(file)):
        text, at, read_bytes = text[at:] + block, 0, read_bytes + block_bytes
        if block and len(text) < 2 * tried:  # parsing all of it again for every block would take ages
            continue
        while True:
            at = _skip(text, at, _SPACE + "," if in_list else _SPACE)
            if at == len(text):
                break
            if number == 1 and not in_list and text[at] == "[":
                in_list, at = True, at + 1
                continue
            if in_list and text[at] == "]":
                in_list, at = False, at + 1
                continue
            try:
                value, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if block and len(text) - at < _MAX_ITEM_BYTES and isinstance(error, ValueError):
                    tried = len(text) - at  # its end may not be here yet
                    break
                raise fault(f"{file.shown}, item {number} is not JSON: {first_line(error)}") from None
            yield value, read_bytes
            number, read_bytes, tried = number + 1, 0, 0
    if in_list:
        raise fault(f"{file.shown} ends in the middle of a list")


def _and_end(blocks: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    yield from blocks
    yield "", 0


def _skip(text: str, at: int, what: str) -> int:
    while at < len(text) and text[at] in what:
        at += 1
    return at


# .csv


def _head(file: SourceFile) -> list[str]:
    with opened(file) as (stream, _):
        names = next(_cells(file, stream), (1, []))[1]
    if len(set(names)) < len(names):
        raise fault(f"{file.shown}, line 1 names a column twice: give each a name of its own")
    return names


def _csv(file: SourceFile) -> Iterator[Record]:
    before, names = 0, None
    with opened(file) as (stream, taken):
        for number, cells in _cells(file, stream):
            if names is None:
                names = cells
                continue
            where, now = f"{file.shown}, line {number}", taken()
            if len(cells) != len(names):
                raise fault(f"{where} has {len(cells)} cells, where line 1 names {len(names)} columns")
            yield Record(where, dict(zip(names, cells, strict=True)), now - before)
            before = now


def _cells(file: SourceFile, stream: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """The number of a row's last line, and its cells; lines that are empty are left out."""
    csv.field_size_limit(_MAX_ITEM_BYTES)
    reader = csv.reader(_text_lines(file, stream), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise fault(f"{file.shown}, line {reader.line_num} is not CSV: {error}") from None


def _text_lines(file: SourceFile, stream: BinaryIO) -> Iterator[str]:
    for number, line in _lines(file, stream):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise fault(f"{file.shown}, line {number} is not text: byte {error.start} is not UTF-8") from None
        if "\0" in text:
            raise fault(f"{file.shown}, line {number} is not text: byte {line.index(0)} is NUL")
        yield text


def _is_number(value: str) -> bool:
    try:
        return not value.strip() or float(value) is not None
    except ValueError:
        return False
