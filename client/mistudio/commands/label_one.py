"""The labels of one feature: looked at, written, accepted, rejected."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, output
from mistudio.commands.artifact import show
from mistudio.commands.feature import INDEX
from mistudio.commands.label import by_whom, label
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.feature_page import interval, newest, score
from mistudio.options import Call, columned, pass_call
from mistudio.tables import Columns, show_rows

_COUNTS = ("tp", "fn", "tn", "fp", "failed")
_HISTORY: Columns = {
    "ID": lambda one: one["id"],
    "STANDS": lambda one: one["current"],
    "BY": lambda one: by_whom(one),
    "STATUS": lambda one: one["status"],
    "MADE": lambda one: human.ago(one["created_at"]),
    "SCORE": lambda one: "; ".join(map(score, newest(one["scores"]))) or human.UNKNOWN,
    "LABEL": lambda one: one["text"],
}


@label.command("show")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@pass_call
def show_one(call: Call, sae: str, index: int) -> None:
    """Show a feature's label with its scores, and those it had before."""
    found = call.client.labels(sae, index)
    current = next((one for one in found["labels"] if one["current"]), None)
    if call.json:
        output.data({"label": current, **found})
        return
    if found["failure"]:
        output.note(f"the last try to label it gave nothing: {found['failure']['reason']}")
    if current is None:
        output.note(f"feature {index} has no label; mistudio label set {sae} {index} TEXT gives it one")
    else:
        output.record(_about(current))
        _show_scores(current["scores"])
    others = [one for one in found["labels"] if one is not current]
    if others:
        output.text("")
        output.table(list(_HISTORY), [[value(one) for value in _HISTORY.values()] for one in others])


def _about(label: dict[str, Any]) -> dict[str, object]:
    return {
        "label": label["text"],
        "explanation": label["explanation"],
        "id": label["id"],
        "by": by_whom(label),
        "status": label["status"],
        "template": label["template"],
        "extraction": label["extraction"],
        "job": label["job"],
        "made": human.ago(label["created_at"]),
    }


def _show_scores(scores: list[dict[str, Any]]) -> None:
    if scores:
        output.text("")
        rows = [
            [
                one["method"], one["judge"], interval(one), interval(one, "auroc", "auroc_low", "auroc_high"),
                *(human.count(one[name]) for name in _COUNTS), human.ago(one["created_at"]),
            ]
            for one in scores
        ]  # fmt: skip
        header = ["METHOD", "JUDGE", "BALANCED ACCURACY", "AUROC", *map(str.upper, _COUNTS), "MADE"]
        output.table(header, rows)


@label.command("history")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@columned
@pass_call
def history(call: Call, sae: str, index: int) -> None:
    """List all labels that a feature has had, the newest first."""
    found = call.client.labels(sae, index)
    show_rows(call, found, found["labels"], _HISTORY)


@label.command("set")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@click.argument("text")
@click.option("--explanation", help="what it means, at more length")
@pass_call
def set_one(call: Call, sae: str, index: int, text: str, explanation: str | None) -> None:
    """Write a feature's label yourself; no job replaces it."""
    made = call.client.set_label(sae, index, text, explanation)
    if call.json:
        output.data(made)
    else:
        output.note(f"feature {index} is called {made['text']!r}")


@label.command("accept")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@click.argument("id", type=int, required=False)
@pass_call
def accept(call: Call, sae: str, index: int, id: int | None) -> None:
    """Accept the label of a feature, or an earlier one by its ID: it stands until a person changes it."""
    changed = call.client.accept_label(sae, _id(call, sae, index, id))
    _say(call, changed, index)


@label.command("reject")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@click.argument("id", type=int, required=False)
@pass_call
def reject(call: Call, sae: str, index: int, id: int | None) -> None:
    """Reject the label of a feature, or another of its labels by its ID."""
    changed = call.client.reject_label(sae, _id(call, sae, index, id))
    _say(call, changed, index)


def _id(call: Call, sae: str, index: int, given: int | None) -> int:
    """Of the label that is meant, which must be one of the feature's. Raises ApiError."""
    history = call.client.labels(sae, index)["labels"]
    for one in history:
        if one["id"] == given or (given is None and one["current"]):
            return int(one["id"])
    if given is None:
        raise ApiError(404, "not_found", f"feature {index} has no label")
    ids = ", ".join(str(one["id"]) for one in history)
    raise ApiError(404, "not_found", f"feature {index} has no label {given}{f'; it has {ids}' if ids else ''}")


def _say(call: Call, changed: dict[str, Any], index: int) -> None:
    if call.json:
        show(call, changed)
    else:
        output.note(f"feature {index}: {changed['text']!r} is {changed['status']}")
