"""Lists for people: the columns that a command chooses, or those that --columns names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from mistudio import output
from mistudio.near import did_you_mean
from mistudio.options import Call

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], object]]


def show_rows(call: Call, found: object, rows: Sequence[Row], columns: Columns) -> None:
    """``found`` with --json, else a table of the rows."""
    if call.json and call.columns:
        raise click.UsageError("--columns chooses what a table shows: leave it or --json away")
    if call.json:
        output.data(found)
    elif call.columns:
        for name in call.columns:
            _check(name, rows)
        cells = [[field(row, name) for name in call.columns] for row in rows]
        output.table([name.upper() for name in call.columns], cells)
    else:
        output.table(list(columns), [[value(row) for value in columns.values()] for row in rows])


def field(row: Row, name: str) -> Any:
    """``progress.done`` is the ``done`` of the ``progress``; None where there is none."""
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _check(name: str, rows: Sequence[Row]) -> None:
    """A field is known when a row has it, or may have it: what is null today may hold fields tomorrow."""
    if rows and not any(_may_have(row, name) for row in rows):
        known = dict.fromkeys(path for row in rows for path in _paths(row))
        near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise click.UsageError(f"there is no column {name!r}{near}")


def _may_have(row: Row, name: str) -> bool:
    value: Any = row
    for part in name.split("."):
        if value is None:
            return True
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _paths(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in row.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
