"""Features as a table, and the options that say which of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mistudio import human, output
from mistudio.api import Client
from mistudio.examples import in_context
from mistudio.options import Call
from mistudio.tables import Columns, show_rows
from mistudio.visible import cut, visible

_PAGE = 1000
_LABEL_CELLS = 36
_NARROWEST = 24  # cells of an example
_OTHERS = 59  # cells of the columns of numbers, and of the gaps


def among(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which features, and in which order."""
    for option in (
        click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="features to show"),
        click.option(
            "--filter", metavar="TERMS",
            help="terms that must all hold, such as 'alive density<0.01': dead, alive, labelled, unlabelled, starred, "
            "density<X, max>X, score>X, provider:NAME, list:NAME, token:TEXT",
        ),
        click.option(
            "--sort", default="index", show_default=True, metavar="FIELD",
            help="index, density, max, typical, token, label or score; - before it for the largest first: -max",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def asked(
    client: Client, sae: str, sort: str, filter: str | None = None, q: str | None = None, limit: int = 50
) -> dict[str, Any]:
    """As many as were asked for, of as many pages as that takes."""
    found = client.features(sae, sort, filter, q, min(limit, _PAGE), example=True)
    while found["next"] is not None and (left := limit - len(found["features"])) > 0:
        page = client.features(sae, sort, filter, q, min(left, _PAGE), found["next"], example=True)
        found = {**page, "features": found["features"] + page["features"]}
    return found


def show_features(call: Call, found: dict[str, Any]) -> None:
    rows = found["features"]
    labels = [_label(row) for row in rows]
    width = output.canvas().width
    room = None
    if width is not None:
        longest = max((len(text) for text in labels), default=0)
        room = max(width - _OTHERS - min(longest, _LABEL_CELLS), _NARROWEST)
    columns: Columns = {
        "FEATURE": lambda row: f"{row['index']}{'★' * bool(row['starred'])}",
        "LABEL": lambda row: cut(visible(_label(row)), _LABEL_CELLS) if width else _label(row),
        "SCORE": lambda row: human.number(row["score"], 2),
        "DENSITY": lambda row: human.density(row["density"]),
        "MAX": lambda row: human.number(row["max"], 2),
        "TYPICAL": lambda row: human.number(row["typical"], 2),
        "BEST EXAMPLE": lambda row: in_context(row["example"], room) if row.get("example") else human.UNKNOWN,
    }
    show_rows(call, found, rows, columns)
    if not call.json and len(rows) < found["total"]:
        output.note(f"{human.count(len(rows))} of {human.count(found['total'])} features; --limit shows more")


def _label(row: dict[str, Any]) -> str:
    return str(row["label"]["text"]) if row["label"] else human.UNKNOWN
