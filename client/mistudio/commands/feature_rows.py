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
_NARROWEST = 12  # cells of a label, and of an example
_WIDE = 100  # a terminal that has room for all columns
_OTHERS, _TYPICAL = 50, 11  # cells of the columns of numbers with their gaps, and of the one that is left out first


def among(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which features, and in which order."""
    for option in (
        click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="features to show"),
        click.option(
            "--filter", metavar="TERMS",
            help="terms that must all hold, such as 'alive density<0.01': dead, alive, labelled, unlabelled, failed, "
            "starred, density<X, max>X, score>X, provider:NAME, list:NAME, token:TEXT, index:5,12",
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
    width = output.canvas().width
    label_cells, room = (None, None) if width is None else _room(rows, width)
    columns: Columns = {
        "FEATURE": lambda row: f"{row['index']}{'★' * bool(row['starred'])}",
        "LABEL": lambda row: cut(visible(_label(row)), label_cells) if label_cells else _label(row),
        "SCORE": lambda row: human.number(row["score"], 2),
        "DENSITY": lambda row: human.density(row["density"]),
        "MAX": lambda row: human.number(row["max"], 2),
        "TYPICAL": lambda row: human.number(row["typical"], 2),
        "BEST EXAMPLE": lambda row: in_context(row["example"], room) if row.get("example") else human.UNKNOWN,
    }
    if width is not None and width < _WIDE:
        del columns["TYPICAL"]
    show_rows(call, found, rows, columns)
    if not call.json and len(rows) < found["total"]:
        output.note(f"{human.count(len(rows))} of {human.count(found['total'])} features; --limit shows more")


def _room(rows: list[dict[str, Any]], width: int) -> tuple[int, int]:
    """Cells for labels and for examples, so that peaks are seen."""
    rest = width - _OTHERS - (_TYPICAL if width >= _WIDE else 0)
    longest = max((len(_label(row)) for row in rows), default=0)
    label = max(min(longest, _LABEL_CELLS, rest // 2), _NARROWEST)
    return label, max(rest - label, _NARROWEST)


def _label(row: dict[str, Any]) -> str:
    return str(row["label"]["text"]) if row["label"] else human.UNKNOWN
